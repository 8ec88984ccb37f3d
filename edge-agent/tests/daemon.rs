//! The daemon as a process: exit codes, the ready line, signals.

#[cfg(test)]
#[expect(dead_code, reason = "only the module file is needed here")]
#[path = "../src/tests/power.rs"]
mod power;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn agent(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-agent"));
    command.arg("--config").arg(config);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The daemon ends with this code, says each part on stderr, and nothing on stdout.
#[track_caller]
fn ends(config: &Path, code: i32, parts: &[&str]) {
    let Output {
        status,
        stdout,
        stderr,
    } = agent(config).output().expect("the daemon starts");
    let stderr = String::from_utf8(stderr).expect("messages are UTF-8");
    assert_eq!(status.code(), Some(code), "{stderr}");
    assert!(stdout.is_empty());
    for part in parts {
        assert!(stderr.contains(part), "{part:?} is not in {stderr}");
    }
}

#[test]
fn a_bad_configuration_ends_with_64_and_names_key_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    ends(&config, 64, &["agent.toml", "No such file"]);
    std::fs::write(&config, "modules = ['m.wasm']\nslotz = 1\n").unwrap();
    ends(&config, 64, &["agent.toml", "line 2", "slotz"]);
    std::fs::write(&config, "modules = ['m.wasm']\nslots = 0\n").unwrap();
    ends(&config, 64, &["agent.toml", "line 2: slots"]);
}

#[test]
fn a_start_that_fails_ends_with_1_and_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    std::fs::write(&config, "modules = ['m.wasm']\nlisten = '127.0.0.1:0'\n").unwrap();
    ends(&config, 1, &["m.wasm"]);
}

#[test]
fn it_says_once_that_it_is_ready_and_stops_on_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    std::fs::write(folder.path().join("m.wasm"), power::module("power")).unwrap();
    let text = "modules = ['m.wasm']\nlisten = '127.0.0.1:0'\nlog-format = 'json'\n";
    std::fs::write(&config, text).unwrap();
    for signal in ["-TERM", "-INT"] {
        let mut child = agent(&config).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let port = line
            .strip_prefix("tidegate-agent listening on 127.0.0.1:")
            .unwrap_or_else(|| panic!("{line:?}"));
        assert_ne!(port.trim_end().parse::<u16>().unwrap(), 0);
        stop(&child, signal);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        let mut log = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        assert!(child.wait().unwrap().success(), "{log}");
        assert!(log.lines().all(|line| line.starts_with('{')), "{log}");
        assert!(log.contains(r#""model":"power""#), "{log}");
    }
}

fn stop(child: &Child, signal: &str) {
    let status = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(status.expect("kill is there").success());
}

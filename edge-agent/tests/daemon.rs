//! The daemon as a process: exit codes, the ready line, signals.

#[cfg(test)]
#[expect(dead_code, reason = "only the module file is needed here")]
#[path = "../src/tests/power.rs"]
mod power;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tidegate_inference::{Dtype, TensorSpec};
use tidegate_runtime::module::pass_through;
use tidegate_runtime::{Manifest, ModuleFile};

fn agent(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-agent"));
    command.arg("--config").arg(config);
    command.env(
        "XDG_STATE_HOME",
        concat!(env!("CARGO_TARGET_TMPDIR"), "/state"),
    );
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
    let relays = "modules = ['m.wasm']\n[burst]\nrelays = ['::1:4433']\n";
    std::fs::write(&config, relays).unwrap();
    ends(&config, 64, &["agent.toml", "line 3: burst.relays"]);
}

#[test]
fn bad_arguments_end_with_64_and_help_with_0() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-agent"));
        command.args(arguments).output().expect("the daemon starts")
    };
    for arguments in [&[][..], &["--config"], &["--config", "a", "b"], &["--port"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
    let help = run(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8_lossy(&help.stdout).contains("--config"));
}

#[test]
fn a_start_that_fails_ends_with_1_and_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    std::fs::write(&config, "modules = ['m.wasm']\nlisten = '127.0.0.1:0'\n").unwrap();
    ends(&config, 1, &["m.wasm"]);
}

#[test]
fn a_graph_that_would_take_all_memory_is_an_error_that_says_so() {
    // Two bytes a node in the file, hundreds in memory: over a gigabyte.
    let nodes = [0x0a, 0x00].repeat(4 << 20);
    let bomb = [&[0x3a, 0x80, 0x80, 0x80, 0x04][..], &nodes].concat();
    let floats = |name: &str| TensorSpec {
        name: name.to_owned(),
        dtype: Dtype::Fp32,
        shape: vec![1],
    };
    let manifest = Manifest::new("bomb", "1.0.0", vec![floats("x")], vec![floats("y")]);
    let component = pass_through("g").unwrap();
    let module = ModuleFile::assemble(&component, manifest, &[("g", &bomb)]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("m.wasm"), module.file()).unwrap();
    let config = folder.path().join("agent.toml");
    let text = "modules = ['m.wasm']\nlisten = '127.0.0.1:0'\ngraph-memory-max = 268435456\n\
                trust.allow-unsigned = true\n";
    std::fs::write(&config, text).unwrap();
    let what = "graph preparation was killed: it wanted more than 268435456 bytes";
    ends(&config, 1, &["m.wasm", what]);
}

#[test]
fn it_says_once_that_it_is_ready_and_stops_on_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    std::fs::write(folder.path().join("m.wasm"), power::module("power")).unwrap();
    for (signal, format) in [("-TERM", "json"), ("-INT", "text")] {
        let text = "modules = ['m.wasm']\nlisten = '127.0.0.1:0'\ntrust.allow-unsigned = true\n";
        std::fs::write(&config, format!("{text}log-format = '{format}'\n")).unwrap();
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
        let is_json = |line: &str| line.starts_with('{') && !line.contains(r#""fields""#);
        let is_plain = |line: &str| !line.starts_with('{') && !line.contains('\x1b');
        match format {
            "json" => assert!(log.lines().all(is_json), "{log}"),
            _ => assert!(log.lines().all(is_plain), "{log}"),
        }
        for part in ["power", "draining", "stopped"] {
            assert!(log.contains(part), "{log}");
        }
    }
}

#[test]
fn a_signal_during_the_start_ends_it_well() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("agent.toml");
    let text = "modules = ['m.wasm']\nlisten = '127.0.0.1:0'\nstate-dir = 'state'\n";
    std::fs::write(&config, text).unwrap();
    // Another process that changes the folder, for which the start waits.
    let lock = folder.path().join("state/code/.lock");
    let mut make = std::fs::DirBuilder::new();
    make.mode(0o700).recursive(true);
    make.create(lock.parent().unwrap()).unwrap();
    let held = std::fs::File::create(&lock).unwrap();
    held.lock().unwrap();
    let mut child = agent(&config).spawn().unwrap();
    let files = format!("/proc/{}/fd", child.id());
    let waits = || {
        let mut open = std::fs::read_dir(&files).unwrap();
        open.any(|file| file.unwrap().path().read_link().is_ok_and(|to| to == lock))
    };
    while !waits() {
        assert_eq!(child.try_wait().unwrap(), None, "it waits for nobody");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    stop(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty());
}

fn stop(child: &Child, signal: &str) {
    let status = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status();
    assert!(status.expect("kill is there").success());
}

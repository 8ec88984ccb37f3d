//! The relay as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::agent::check_neighbour;
use crate::fixture::certificates;

fn command(config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-relay"));
    command.arg("--config").arg(config).stdin(Stdio::null());
    command.env(
        "XDG_STATE_HOME",
        concat!(env!("CARGO_TARGET_TMPDIR"), "/state"),
    );
    command
}

/// Kills the process if the test fails before it has ended.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_line_says_where_it_listens_and_sigterm_ends_it_well() {
    let certificates = certificates();
    let config = certificates.path().join("relay.toml");
    let text = "listen = \"127.0.0.1:0\"\ncertificate = \"relay.pem\"\nkey = \"relay.key\"\n\
                ca = \"ca.pem\"\nslots = 1\nlog-format = \"json\"\ntrust.allow-unsigned = true\n";
    std::fs::write(&config, text).unwrap();
    let mut relay = command(&config);
    let mut relay = Killed(
        relay
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut out = BufReader::new(relay.0.stdout.take().unwrap()).lines();
    let line = out.next().unwrap().unwrap();
    let address = line.strip_prefix("tidegate-relay listening on ").unwrap();
    check_neighbour(address.parse::<SocketAddr>().unwrap(), &certificates).await;

    let id = relay.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    assert!(relay.0.wait().unwrap().success());
    assert!(out.next().is_none());
    let log = std::io::read_to_string(relay.0.stderr.take().unwrap()).unwrap();
    assert!(
        log.lines()
            .all(|line| line.starts_with('{') && !line.contains("\"fields\"")),
        "{log}"
    );
    assert!(
        log.contains("an agent connected") && log.contains("draining"),
        "{log}"
    );
}

#[test]
fn a_signal_during_the_start_ends_it_well() {
    let certificates = certificates();
    let config = certificates.path().join("relay.toml");
    let text = "listen = \"127.0.0.1:0\"\ncertificate = \"relay.pem\"\nkey = \"relay.key\"\n\
                ca = \"ca.pem\"\nstate-dir = \"state\"\n";
    std::fs::write(&config, text).unwrap();
    // Another process that changes the folder, for which the start waits.
    let lock = certificates.path().join("state/code/.lock");
    let mut make = std::fs::DirBuilder::new();
    make.mode(0o700).recursive(true);
    make.create(lock.parent().unwrap()).unwrap();
    let held = std::fs::File::create(&lock).unwrap();
    held.lock().unwrap();
    let mut relay = Killed(command(&config).stdout(Stdio::piped()).spawn().unwrap());
    let files = format!("/proc/{}/fd", relay.0.id());
    let waits = || {
        let mut open = std::fs::read_dir(&files).unwrap();
        open.any(|file| file.unwrap().path().read_link().is_ok_and(|to| to == lock))
    };
    while !waits() {
        assert_eq!(relay.0.try_wait().unwrap(), None, "it waits for nobody");
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let id = relay.0.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &id]).status();
    assert!(sent.unwrap().success());
    assert!(relay.0.wait().unwrap().success());
    let out = std::io::read_to_string(relay.0.stdout.take().unwrap()).unwrap();
    assert_eq!(out, "");
}

#[test]
fn a_configuration_that_cannot_be_used_ends_it_with_64_and_the_reason() {
    let certificates = certificates();
    let config = certificates.path().join("relay.toml");
    let run = |config: &Path| -> Output { command(config).output().unwrap() };
    let check = |output: Output, code, parts: &[&str]| {
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(output.stdout.is_empty());
        for part in parts {
            assert!(error.contains(part), "{part:?} not in {error:?}");
        }
    };
    check(run(&config), 64, &["relay.toml", "No such file"]);
    std::fs::write(&config, "slot = 1\n").unwrap();
    check(run(&config), 64, &["relay.toml", "line 1", "slot"]);
    let text = "certificate = \"relay.pem\"\nkey = \"none.key\"\nca = \"ca.pem\"\n";
    std::fs::write(&config, text).unwrap();
    check(run(&config), 1, &["none.key", "No such file"]);
    check(
        Command::new(env!("CARGO_BIN_EXE_tidegate-relay"))
            .output()
            .unwrap(),
        64,
        &["--config"],
    );
}

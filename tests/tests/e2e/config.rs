//! Configuration files as an operator writes them.

use std::net::TcpListener;

use tidegate_tests::http::Http;
use tidegate_tests::models::{doubled, doubler_request};
use tidegate_tests::site::Site;

/// What the operating system calls bad usage.
const EX_USAGE: Option<i32> = Some(64);

#[test]
fn a_mistake_is_named_by_file_line_and_key() {
    let site = Site::new();
    for (command, text, expected) in [
        (
            "agent",
            "modules = ['a.wasm']\n\nslotz = 1\n",
            ["slotz", "line 3"],
        ),
        (
            "agent",
            "modules = ['a.wasm']\n[burst]\npolise = 'off'\n",
            ["polise", "line 3"],
        ),
        ("agent", "modules = ['a.wasm']\nslots = 0\n", ["slots", "2"]),
        (
            "agent",
            "modules = ['a.wasm']\nlisten = 'here'\n",
            ["listen", "2"],
        ),
        ("agent", "slots = 1\n", ["modules", "toml"]),
        ("agent", "modules = [\n", ["line", "1"]),
        ("relay", "name = 'r'\nslotz = 1\n", ["slotz", "line 2"]),
        ("relay", "name = 'r'\n", ["certificate", "toml"]),
    ] {
        let ended = site.daemon(&[command], text).unwrap_err();
        assert_eq!(ended.status.code(), EX_USAGE, "{text}: {}", ended.log);
        for part in expected {
            assert!(
                ended.log.contains(part),
                "{part:?} is not in {:?}",
                ended.log
            );
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_bad_usage() {
    let site = Site::new();
    for command in ["agent", "relay"] {
        let output = site.tidegate(&[command, "--config", "nowhere.toml"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), EX_USAGE, "{error}");
        assert!(error.contains("nowhere.toml"), "{error}");
    }
}

#[tokio::test]
async fn a_module_and_whom_to_trust_are_a_configuration() {
    let site = Site::new();
    site.pack_doubler();
    let address = "127.0.0.1:8080".parse().unwrap();
    let taken = TcpListener::bind(address);
    let text = "modules = ['doubler.wasm']\ntrust.allow-unsigned = true\n";
    match taken {
        Ok(free) => {
            drop(free);
            let agent = site.daemon(&["agent"], text).unwrap();
            assert_eq!(agent.address(), address);
            let http = Http::Tcp(address);
            let answer = http.infer("doubler", &doubler_request()).await.unwrap();
            assert_eq!(answer.outputs(), doubled());
        }
        // Somebody else has the default port: then the agent must say so.
        Err(_) => {
            let ended = site.daemon(&["agent"], text).unwrap_err();
            assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
            assert!(
                ended.log.contains("failed to listen on 127.0.0.1:8080"),
                "{}",
                ended.log
            );
        }
    }
}

//! What keeps an agent from starting, and what does not.

use std::os::unix::fs::PermissionsExt;

use tidegate_inference::Placement;
use tidegate_open_inference::Infer;

use super::client::Client;
use super::power::{self, DIAGONAL};
use super::{running, start_error};

#[tokio::test]
async fn a_bad_module_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = start_error(folder.path(), "modules = ['absent.wasm']").await;
    assert!(error.contains("absent.wasm"), "{error}");
    let file = power::module("power");
    for (name, bytes) in [
        ("text.wasm", &b"not WebAssembly"[..]),
        ("empty.wasm", b""),
        ("cut.wasm", &file[..file.len() - 9]),
    ] {
        std::fs::write(folder.path().join(name), bytes).unwrap();
        let error = start_error(folder.path(), &format!("modules = ['{name}']")).await;
        assert!(error.contains(name), "{error}");
    }
}

#[tokio::test]
async fn two_modules_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.wasm", "b.wasm"] {
        std::fs::write(folder.path().join(name), power::module("power")).unwrap();
    }
    let error = start_error(folder.path(), "modules = ['a.wasm', 'b.wasm']").await;
    for part in ["a.wasm", "b.wasm", "power"] {
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_port_or_socket_in_use_is_named() {
    let first = running("").await;
    let taken = first.agent.local_addr();
    let text = "modules = ['power.wasm']\n";
    let config = format!("{text}unix-socket = 'power.wasm'\n");
    let error = start_error(first.folder.path(), &config).await;
    assert!(error.contains("power.wasm"), "{error}");
    let module = first.folder.path().join("power.wasm");
    assert!(module.is_file(), "a file that is no socket is left alone");

    let config = super::config(first.folder.path(), text);
    let config = crate::Config {
        listen: taken,
        ..config
    };
    let error = crate::start(config).await.unwrap_err();
    assert!(error.to_string().contains(&taken.to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_relay_reachable_an_agent_serves() {
    let certificates = tempfile::tempdir().unwrap();
    let folder = certificates.path().join("pki");
    tidegate_identity::make_dev_certs(&folder).unwrap();
    let pki = folder.display();
    let burst = format!(
        "[burst]\nrelays = ['127.0.0.1:9', 'nowhere.invalid:1']\nrelays-file = 'absent.txt'\n\
         certificate = '{pki}/agent.pem'\nkey = '{pki}/agent.key'\nca = '{pki}/ca.pem'\n"
    );
    let running = running(&burst).await;
    let mut client = Client::tcp(running.agent.local_addr()).await;
    assert_eq!(client.power(2, "").await.unwrap().floats()[0], DIAGONAL);
    assert!(running.agent.service.burst.is_some());
    let drained = running
        .agent
        .shutdown(std::time::Duration::from_secs(60))
        .await;
    assert_eq!(drained, crate::Drained::Completely);
}

#[tokio::test]
async fn who_wants_signatures_needs_a_folder_to_remember_versions_in() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let make = |name: &str, mode: u32| {
        std::fs::create_dir(at(name)).unwrap();
        std::fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
    };
    std::fs::write(at("power.wasm"), power::module("power")).unwrap();
    std::fs::write(at("file"), "").unwrap();
    make("shared", 0o777);
    make("full", 0o700);
    // As good as a full disk to whoever would write that file.
    std::os::unix::fs::symlink(at("nowhere/seen.json"), at("full/seen.json")).unwrap();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPOfQY1BAUcJtbrrPCHM4xpPptRSpXW90fsyb2XgyYEX";
    let rule = format!("[[trust.rules]]\nnames = ['signed']\nkeys = ['{key}']\n");
    let config = |state: &str| {
        let config = super::config(
            folder.path(),
            &format!("modules = ['power.wasm']\ntrust.allow-unsigned = true\n{rule}"),
        );
        let state = tidegate_daemon::state::StateConfig {
            folder: Some(at(state)),
            ..config.state
        };
        crate::Config { state, ..config }
    };
    for state in ["file", "shared", "full"] {
        let error = crate::start(config(state)).await.unwrap_err();
        let error = super::chain(&error);
        for part in ["state-dir", &at(state).display().to_string()] {
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
    }
    // A good folder is proved by a file in it, before anything is to be remembered.
    crate::start(config("good")).await.unwrap();
    assert!(at("good/seen.json").is_file());
}

#[tokio::test]
async fn every_module_is_served_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        std::fs::write(folder.path().join(name), power::module(name)).unwrap();
    }
    let config = super::config(folder.path(), "modules = ['one', 'two']");
    let agent = crate::start(config).await.unwrap();
    assert_eq!(agent.service.model_names(), ["one", "two"]);
    let request = tidegate_inference::Request {
        id: None,
        model: "two".to_owned(),
        version: Some("1.2.0".to_owned()),
        inputs: vec![power::input(1)],
        outputs: Vec::new(),
        priority: tidegate_inference::Priority::High,
        deadline: None,
    };
    let reply = agent.service.infer(request).await.unwrap();
    assert_eq!(reply.placement, Placement::Local);
}

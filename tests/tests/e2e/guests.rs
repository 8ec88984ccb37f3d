//! Modules that are broken or mean harm: they fail alone.

use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use serde_json::json;
use tidegate_tests::models::{
    Behaviour, doubled, doubler, doubler_request, echo_manifest, echo_request, guest, in_version,
};
use tidegate_tests::site::Site;
use tidegate_tests::wait::eventually;

#[tokio::test]
async fn a_guest_that_misbehaves_fails_alone() {
    let site = Site::new();
    site.pack_doubler();
    let hostile = [
        ("loops", Behaviour::Loop, 504),
        ("traps", Behaviour::Trap, 500),
        ("allocates", Behaviour::Allocate, 500),
        ("recurses", Behaviour::Recurse, 500),
    ];
    let mut modules = "'doubler.wasm'".to_owned();
    for (name, behaviour, _) in hostile {
        site.must_pack_guest(name, behaviour);
        modules += &format!(", '{name}.wasm'");
    }
    let agent = site.agent(&format!(
        "modules = [{modules}]\nslots = 2\nslo-ms = 20000\n"
    ));
    for (name, _, status) in hostile {
        let mut request = echo_request(name, 1);
        request["parameters"] = json!({"timeout": 1_000_000});
        let http = agent.http.clone();
        let harm = tokio::spawn(async move { http.infer(name, &request).await.unwrap() });
        let neighbour = agent
            .http
            .infer("doubler", &doubler_request())
            .await
            .unwrap();
        assert_eq!(
            neighbour.outputs(),
            doubled(),
            "beside the guest that {name}"
        );
        let error = harm.await.unwrap().error(status);
        assert!(!error.is_empty(), "{name}");
    }
    let neighbour = agent
        .http
        .infer("doubler", &doubler_request())
        .await
        .unwrap();
    assert_eq!(neighbour.outputs(), doubled());
    let resident = agent.daemon.peak_resident_bytes();
    assert!(resident < 1 << 30, "{resident} bytes");
}

#[test]
fn a_guest_that_imports_a_socket_is_refused_by_the_name_of_the_import() {
    let site = Site::new();
    let output = site.pack_guest("socket", Behaviour::Socket);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("wasi:sockets/instance-network"), "{error}");
    assert!(!site.path("socket.wasm").exists());
}

#[test]
fn an_onnx_file_that_is_not_one_is_not_packed() {
    let site = Site::new();
    for (name, contents) in [
        ("text.onnx", &b"this is no model"[..]),
        ("empty.onnx", b""),
        ("zeros.onnx", &[0; 4096]),
    ] {
        site.write(name, contents);
        let output = site.tidegate(&["pack", name, "-o", "out.wasm"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {error}");
        assert!(error.contains(name), "{error}");
        assert!(!site.path("out.wasm").exists(), "{name}");
    }
}

#[test]
fn inputs_are_settled_while_packing() {
    let site = Site::new();
    site.write("doubler.onnx", doubler());
    let pack = |arguments: &[&str]| {
        let pack = ["pack", "doubler.onnx", "-o", "out.wasm"];
        site.tidegate(&[&pack, arguments].concat())
    };
    let fixed = pack(&["--shape", "x=3,4"]);
    assert!(fixed.status.success(), "{fixed:?}");
    let inspected = site.tidegate(&["inspect", "out.wasm"]);
    let text = String::from_utf8_lossy(&inspected.stdout).into_owned();
    assert!(text.contains("[3, 4]"), "{text}");
    let folded = pack(&["--const", "x=[[1, 2, 3, 4]]"]);
    assert!(folded.status.success(), "{folded:?}");
    for (arguments, message) in [
        (["--shape", "x=3,5"], "which [3, 5] does not fit"),
        (["--shape", "z=3,4"], "no input \"z\""),
        (["--const", "x=[1, 2]"], "it has the shape [2]"),
        (["--const", "x"], "there is no `=`"),
    ] {
        let output = pack(&arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {error}");
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_module_that_is_cut_off_or_altered_is_refused_by_its_path() {
    let site = Site::new();
    site.must_pack_guest("echo", Behaviour::EchoAfter(Duration::ZERO));
    let whole = std::fs::read(site.path("echo.wasm")).unwrap();
    let half = whole[..whole.len() / 2].to_vec();
    let short = whole[..whole.len() - 1].to_vec();
    for (name, contents) in [
        ("half.wasm", half),
        ("short.wasm", short),
        ("empty.wasm", vec![]),
        ("text.wasm", b"this is no module".to_vec()),
    ] {
        site.write(name, contents);
        let ended = site
            .try_agent(&format!("modules = ['{name}']\n"))
            .unwrap_err();
        assert_eq!(ended.status.code(), Some(1), "{name}: {}", ended.log);
        assert!(ended.log.contains(name), "{}", ended.log);
    }
}

#[tokio::test]
async fn a_module_of_a_hundred_thousand_functions_is_made_beside_requests() {
    let site = Site::new();
    site.pack_doubler();
    site.must_pack_version(
        "old",
        "large",
        "1.0.0",
        Behaviour::EchoAfter(Duration::ZERO),
    );
    let functions: String = (0..100_000)
        .map(|index| format!("(func (result i32) (i32.const {index}))"))
        .collect();
    let large = in_version(echo_manifest("large"), "2.0.0");
    site.must_pack("new", &guest(None, "", &functions, ""), &large);
    site.replace("large.wasm", "old.wasm");
    let agent = site.agent(
        "modules = ['doubler.wasm', 'large.wasm']\nslots = 2\nslo-ms = 20000\n\
         [rollout]\npoll-s = 1\ncanary-s-max = 1\nwatch-s = 1\n",
    );
    site.replace("large.wasm", "new.wasm");
    eventually("the new version", async || {
        let neighbour = agent.http.infer("doubler", &doubler_request()).await;
        assert_eq!(neighbour.unwrap().outputs(), doubled());
        let answer = agent.http.infer("large", &echo_request("1", 1)).await;
        let answer = answer.unwrap();
        let _ = answer.outputs();
        (answer.json()["model_version"] == "2.0.0").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_module_of_a_gibibyte_is_refused_and_the_old_one_serves() {
    const GIBIBYTE: u64 = 1 << 30;
    let site = Site::new();
    site.pack_doubler();
    let agent = site.agent("modules = ['doubler.wasm']\n[rollout]\npoll-s = 1\n");
    for (len, says) in [
        (GIBIBYTE, "no tidegate:manifest section"),
        (GIBIBYTE + 1, "more than 1073741824 bytes"),
    ] {
        let file = std::fs::File::create(site.path("huge.wasm")).unwrap();
        // A component of one section without a name, which is as long as is left; a hole in the file.
        let mut rest = len - 14;
        let mut head = b"\0asm\x0d\0\x01\0\0".to_vec();
        for index in 0..5 {
            let bits = u8::try_from(rest & 0x7f).unwrap();
            head.push(if index < 4 { bits | 0x80 } else { bits });
            rest >>= 7;
        }
        file.write_all_at(&head, 0).unwrap();
        file.set_len(len).unwrap();
        std::fs::rename(site.path("huge.wasm"), site.path("doubler.wasm")).unwrap();
        eventually(says, async || {
            let answer = agent.http.infer("doubler", &doubler_request()).await;
            assert_eq!(answer.unwrap().outputs(), doubled());
            agent.daemon.log().contains(says).then_some(())
        })
        .await;
    }
}

//! `tidegate infer` against a real agent.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::pack::Folder;
use crate::{PROGRAM, STATE, tidegate};

/// An agent that ends with the test.
struct Agent {
    child: Child,
    url: String,
}

impl Agent {
    fn start(folder: &Folder) -> Self {
        folder.pack(&[]).ok();
        let config = "listen = '127.0.0.1:0'\nslots = 1\nmodules = ['doubler.wasm']\n\
                      trust.allow-unsigned = true\n";
        let config = folder.put("agent.toml", config.as_bytes());
        let mut child = Command::new(PROGRAM)
            .args(["agent", "--config", &config])
            .env("XDG_STATE_HOME", STATE)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .strip_prefix("tidegate-agent listening on ")
            .expect("the agent is ready");
        let url = format!("http://{}", address.trim_end());
        Self { child, url }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_model_is_asked_with_json_or_with_a_file() {
    let folder = Folder::new();
    let agent = Agent::start(&folder);
    let infer =
        |more: &[&str]| tidegate(&[&["infer", "doubler", "--url", &agent.url], more].concat());
    let text = infer(&["--input", "x=[[1, 2.5, -3, 0]]"]).ok();
    assert!(
        text.starts_with("y (FP32 of shape [1, 4])\n  2.0 5.0 -6.0 0.0\ndoubler 1.0.0"),
        "{text}"
    );
    assert!(text.contains("placement \"local\""), "{text}");

    let raw = folder.put(
        "x.bin",
        &[1.0_f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat(),
    );
    let reply = infer(&["--json", "--input", &format!("x=@{raw}")]).ok();
    let reply: Value = serde_json::from_str(&reply).unwrap();
    assert_eq!(reply["outputs"][0]["data"], json!([2.0, 4.0, 6.0, 8.0]));

    infer(&[]).fails(64, &["x (FP32 of shape [1, 4])"]);
    infer(&["--input", "z=1"]).fails(64, &["\"z\""]);
    infer(&["--input", "x=[\"a\"]"]).fails(64, &["\"a\"", "FP32"]);
    infer(&["--input", "x=[1, 2]"]).fails(1, &["400", "\"x\""]);
    infer(&["--input", "x=@/nowhere/x.bin"]).fails(64, &["/nowhere/x.bin"]);
    tidegate(&["infer", "nobody", "--url", &agent.url]).fails(1, &["404", "nobody"]);
}

#[test]
fn no_agent_is_a_failure_that_names_it() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    tidegate(&["infer", "m", "--url", &url]).fails(1, &[&url]);
}

//! The example guests in other languages, and a program as others publish them.

use std::process::Output;

use serde_json::{Value, json};
use tidegate_tests::checkout::{digits_graph, digits_module, digits_samples, program};
use tidegate_tests::site::Site;

/// How far a score may be from ONNX Runtime's.
const SCORE_TOLERANCE: f64 = 1e-4;

fn samples() -> Vec<Value> {
    let samples = std::fs::read(digits_samples()).unwrap();
    serde_json::from_slice(&samples).unwrap()
}

#[tokio::test]
async fn guests_in_c_and_python_read_digits() {
    let site = Site::new();
    let (c, python) = (digits_module("c"), digits_module("python"));
    let agent = site.agent(&format!(
        "modules = ['{}', '{}']\nslo-ms = 20000\n",
        c.display(),
        python.display()
    ));
    for model in ["digits-c", "digits-python"] {
        for sample in samples() {
            let image = json!({
                "name": "image", "datatype": "UINT8", "shape": [8, 8], "data": sample["image"],
            });
            let request = json!({"inputs": [image]});
            let answer = agent.http.infer(model, &request).await.unwrap();
            let outputs = answer.outputs();
            assert_eq!(outputs[0]["name"], "digit", "{model}");
            assert_eq!(outputs[0]["data"], json!([sample["digit"]]), "{model}");
            let score = outputs[1]["data"][0].as_f64().unwrap();
            let wanted = sample["score"].as_f64().unwrap();
            assert!(
                (score - wanted).abs() < SCORE_TOLERANCE,
                "{model}: {score}, not {wanted}"
            );
        }
    }
    let resident = agent.daemon.peak_resident_bytes();
    assert!(resident < 2 << 30, "{resident} bytes");
}

/// Runs the classifier on a sample, which lies in the site's folder.
fn classify(site: &Site, options: &[&str], arguments: &[&str]) -> Output {
    let program = program("classify");
    let program = program.to_str().unwrap();
    let run = [&["run", program], options, &["--"], arguments].concat();
    site.tidegate(&run)
}

#[test]
fn a_program_in_c_classifies_with_a_graph_by_name_or_from_a_file() {
    let site = Site::new();
    site.write("digits.onnx", std::fs::read(digits_graph()).unwrap());
    let graph = ["--graph", "digits=digits.onnx", "--dir", ".::/data"];
    for (number, sample) in samples().iter().enumerate() {
        let pixels = sample["image"].as_array().unwrap().iter();
        let pixels: Vec<u8> = pixels
            .map(|level| u8::try_from(level.as_u64().unwrap()).unwrap())
            .collect();
        site.write("image.bin", pixels);
        for (options, source) in [(&graph[..], "digits"), (&graph[2..], "/data/digits.onnx")] {
            let output = classify(&site, options, &[source, "/data/image.bin"]);
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{number} {source}: {error}");
            let printed = String::from_utf8(output.stdout).unwrap();
            let (digit, score) = printed.trim().split_once(' ').unwrap();
            assert_eq!(digit, sample["digit"].to_string(), "{number} {source}");
            let score: f64 = score.parse().unwrap();
            let wanted = sample["score"].as_f64().unwrap();
            assert!(
                (score - wanted).abs() < SCORE_TOLERANCE,
                "{score}, not {wanted}"
            );
        }
    }
}

#[test]
fn a_program_s_mistakes_are_its_own_and_the_log_says_what_they_were() {
    let site = Site::new();
    site.write("digits.onnx", std::fs::read(digits_graph()).unwrap());
    site.write("image.bin", [0; 64]);
    site.write("bad.onnx", "no graph");
    let graph = ["--graph", "digits=digits.onnx", "--dir", ".::/data"];
    for (arguments, status, said) in [
        (
            &["digits", "/data/image.bin", "3"][..],
            2,
            "takes FP32 of shape [1, 64], not INT32",
        ),
        (
            &["digits", "/data/image.bin", "77"],
            2,
            "no element type 77",
        ),
        (&["other", "/data/image.bin"], 2, "load_by_name: error 8"),
        (&["/data/bad.onnx", "/data/image.bin"], 2, "load: error 2"),
        (&["digits", "/data/../../etc/hostname"], 3, "/etc/hostname"),
        (&["digits", "/etc/hostname"], 3, "/etc/hostname"),
        (&[], 64, "usage: classify"),
    ] {
        let output = classify(&site, &graph, arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}

//! `tidegate pack --samples` and `tidegate check`.

use std::fs;

use serde_json::Value;

use crate::pack::Folder;
use crate::tidegate;

/// A NumPy file of 32-bit floats.
fn npy(shape: &str, values: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let len = u16::try_from(header.len()).unwrap().to_le_bytes();
    let data: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    [b"\x93NUMPY\x01\0", &len[..], header.as_bytes(), &data].concat()
}

fn put(folder: &Folder, name: &str, values: &[f32]) {
    fs::create_dir_all(folder.path("samples")).unwrap();
    folder.put(&format!("samples/{name}"), &npy("(1, 4)", values));
}

/// A folder with two samples of the doubler: a good one, and one of `second`.
fn folder(second: f32) -> Folder {
    let folder = Folder::new();
    put(&folder, "in_0_0.npy", &[1.0, 2.0, 3.0, 4.0]);
    put(&folder, "out_0_0.npy", &[2.0, 4.0, 6.0, 8.0]);
    put(
        &folder,
        "in_7_0.npy",
        &[0.0, f32::NAN, f32::INFINITY, 1000.0],
    );
    put(
        &folder,
        "out_7_0.npy",
        &[0.0, f32::NAN, f32::INFINITY, second],
    );
    folder.put("samples/NOTE.md", b"not a sample");
    folder
}

#[test]
fn a_module_carries_its_samples_and_passes_them() {
    let folder = folder(2001.0);
    folder.pack(&["--samples", &folder.path("samples")]).ok();
    let module = folder.path("doubler.wasm");
    let printed = tidegate(&["check", &module]).ok();
    for part in ["max relative difference", "agrees", "2 of 2 samples agree"] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
    let json: Value = serde_json::from_str(&tidegate(&["check", "--json", &module]).ok()).unwrap();
    assert_eq!(json["agrees"], true);
    assert_eq!(json["module"], "doubler");
    let output = &json["samples"][1]["outputs"][0];
    assert_eq!(
        (&output["name"], &output["datatype"]),
        (&"y".into(), &"FP32".into())
    );
    let relative = output["max_relative_difference"].as_f64().unwrap();
    assert!((relative - 1.0 / 2001.0).abs() < 1e-9, "{relative}");
    let seen: Value =
        serde_json::from_str(&tidegate(&["inspect", "--json", &module]).ok()).unwrap();
    assert_eq!(
        (&seen["samples"], seen["parts"].as_array().unwrap().len()),
        (&2.into(), 3)
    );
    let first = fs::read(&module).unwrap();
    folder.pack(&["--samples", &folder.path("samples")]).ok();
    assert_eq!(fs::read(&module).unwrap(), first);
}

#[test]
fn a_model_that_does_not_reproduce_its_samples_is_not_packed() {
    let folder = folder(2003.0);
    let samples = folder.path("samples");
    folder.pack(&["--samples", &samples]).fails(
        1,
        &[
            "does not reproduce",
            "sample 1",
            "\"y\"",
            "2000 for 2003 at 3",
        ],
    );
    assert!(!fs::exists(folder.path("doubler.wasm")).unwrap());
}

#[test]
fn a_disagreement_is_a_failure_that_shows_where() {
    let folder = folder(2003.0);
    folder.pack(&[]).ok();
    let (module, samples) = (folder.path("doubler.wasm"), folder.path("samples"));
    let ran = tidegate(&["check", &module, "--samples", &samples]);
    assert_eq!((ran.code, &*ran.err), (Some(1), ""));
    for part in [
        "differs: 1 element differs, such as 2000 for 2003 at 3",
        "1 of 2 samples agree",
    ] {
        assert!(ran.out.contains(part), "{part} is not in {}", ran.out);
    }
    let ran = tidegate(&["check", &module, "--samples", &samples, "--json"]);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &json["agrees"]), (Some(1), &false.into()));
    assert_eq!(json["samples"][0]["agrees"], true);
    tidegate(&["check", &module, "--samples", &samples, "--rtol", "0.01"]).ok();
    tidegate(&[
        "check",
        &module,
        "--samples",
        &samples,
        "--rtol",
        "0",
        "--atol",
        "4",
    ])
    .ok();
    tidegate(&["check", &module, "--rtol=-1"]).fails(64, &["zero or more"]);
    tidegate(&["check", &module, "--atol", "NaN"]).fails(64, &["zero or more"]);
}

#[test]
fn a_module_without_samples_is_a_failure_with_a_word() {
    let folder = Folder::new();
    folder.pack(&[]).ok();
    let module = folder.path("doubler.wasm");
    tidegate(&["check", &module]).fails(1, &["doubler.wasm", "no samples", "--samples"]);
    let empty = folder.path("");
    tidegate(&["check", &module, "--samples", &empty]).fails(1, &["no samples", "in_K_I.npy"]);
    tidegate(&["check", &module, "--samples", "/none"]).fails(1, &["/none"]);
    tidegate(&["check", &folder.path("doubler.onnx")]).fails(1, &["doubler.onnx"]);
}

#[test]
fn a_folder_whose_files_do_not_fit_is_refused_with_the_file() {
    let check = |change: &dyn Fn(&Folder), words: &[&str]| {
        let folder = folder(2000.0);
        change(&folder);
        folder
            .pack(&["--samples", &folder.path("samples")])
            .fails(1, words);
    };
    check(
        &|folder| fs::remove_file(folder.path("samples/out_7_0.npy")).unwrap(),
        &["out_7_0.npy", "missing"],
    );
    check(
        &|folder| put(folder, "in_0_1.npy", &[0.0; 4]),
        &["in_0_1.npy", "no input 1", "has 1"],
    );
    check(
        &|folder| drop(folder.put("samples/in_0_0.npy", &npy("(4,)", &[0.0; 4]))),
        &[
            "in_0_0.npy",
            "FP32 of shape [4]",
            "\"x\" is FP32 of shape [1, 4]",
        ],
    );
    check(
        &|folder| drop(folder.put("samples/in_0_0.npy", b"x")),
        &["in_0_0.npy", "not a NumPy file"],
    );
}

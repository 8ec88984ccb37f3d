//! `tidegate pack` and `tidegate inspect`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Ran, onnx, tidegate};

/// A guest that answers every request with an error, and knows no bindings.
const REFUSING_GUEST: &str = r#"(module
  (memory (export "memory") 1)
  (data (i32.const 16) "\01\00\00\00\20\00\00\00\06\00\00\00")
  (data (i32.const 32) "refuse")
  (global $heap (mut i32) (i32.const 1024))
  (func (export "infer") (param i32 i32) (result i32) (i32.const 16))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (local $place i32)
    (local.set $place (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $place) (local.get 3)))
    (local.get $place)))"#;

/// A folder with a model and whatever else a test puts there.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.put("doubler.onnx", &onnx::doubler());
        folder
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Runs `pack` on the model and `more` arguments, writing `doubler.wasm`.
    pub(crate) fn pack(&self, more: &[&str]) -> Ran {
        let (model, out) = (self.path("doubler.onnx"), self.path("doubler.wasm"));
        tidegate(&[&["pack", &model, "-o", &out], more].concat())
    }

    fn names(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into())
            .collect();
        names.sort();
        names
    }
}

fn inspect(module: &str) -> Value {
    serde_json::from_str(&tidegate(&["inspect", "--json", module]).ok()).unwrap()
}

#[test]
fn a_graph_alone_becomes_a_module_that_says_what_the_graph_says() {
    let folder = Folder::new();
    let out = folder.path("doubler.wasm");
    let printed = folder.pack(&[]).ok();
    let seen = inspect(&out);
    let tensor = |name: &str| json!([{"name": name, "datatype": "FP32", "shape": [1, 4]}]);
    assert_eq!(seen["manifest"]["name"], "doubler");
    assert_eq!(seen["manifest"]["version"], "1.0.0");
    assert_eq!(seen["manifest"]["inputs"], tensor("x"));
    assert_eq!(seen["manifest"]["outputs"], tensor("y"));
    assert_eq!(seen["graphs"][0]["name"], "model");
    assert_eq!(seen["graphs"][0]["bytes"], onnx::doubler().len());
    assert_eq!(seen["bytes"], fs::metadata(&out).unwrap().len());
    let imports = seen["imports"].as_array().unwrap();
    assert!(
        imports
            .iter()
            .all(|name| name.as_str().unwrap().starts_with("wasi:nn/")),
        "{imports:?}"
    );
    for part in [&out, "doubler 1.0.0", seen["digest"].as_str().unwrap()] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
    let text = tidegate(&["inspect", &out]).ok();
    for part in [
        "doubler 1.0.0",
        "x: FP32 of shape [1, 4]",
        seen["digest"].as_str().unwrap(),
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let folder = Folder::new();
    folder.pack(&[]).ok();
    let first = fs::read(folder.path("doubler.wasm")).unwrap();
    folder.pack(&[]).ok();
    assert_eq!(fs::read(folder.path("doubler.wasm")).unwrap(), first);
    assert_eq!(
        folder.names(),
        [Path::new("doubler.onnx"), Path::new("doubler.wasm")]
    );
}

#[test]
fn arguments_go_before_the_manifest_and_that_before_the_graph() {
    let folder = Folder::new();
    let manifest = json!({
        "format": 1, "name": "told", "version": "2.1.0", "licence": "MIT", "labels": {"task": "sums"},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 4]}],
    });
    let manifest = folder.put("m.json", manifest.to_string().as_bytes());
    folder
        .pack(&[
            "--manifest",
            &manifest,
            "--version",
            "3.0.0",
            "--graph-name",
            "sum",
        ])
        .ok();
    let seen = inspect(&folder.path("doubler.wasm"));
    let manifest = &seen["manifest"];
    assert_eq!(manifest["name"], "told");
    assert_eq!(manifest["version"], "3.0.0");
    assert_eq!(manifest["licence"], "MIT");
    assert_eq!(manifest["labels"]["task"], "sums");
    assert_eq!(seen["graphs"][0]["name"], "sum");
    folder
        .pack(&["--name", "given", "--licence", "Apache-2.0"])
        .ok();
    let seen = inspect(&folder.path("doubler.wasm"));
    assert_eq!(seen["manifest"]["name"], "given");
    assert_eq!(seen["manifest"]["licence"], "Apache-2.0");
}

#[test]
fn a_core_guest_without_bindings_is_taken_by_its_names() {
    let folder = Folder::new();
    let guest = folder.put("guest.wasm", &wat::parse_str(REFUSING_GUEST).unwrap());
    folder.pack(&["--guest", &guest]).ok();
    let seen = inspect(&folder.path("doubler.wasm"));
    assert_eq!(seen["manifest"]["inputs"][0]["name"], "x");
}

/// Packs with `more` arguments; that must fail, and leave what was there.
#[track_caller]
fn refuses(folder: &Folder, more: &[&str], code: i32, named: &[&str]) {
    folder.put("doubler.wasm", b"before");
    let names = folder.names();
    folder.pack(more).fails(code, named);
    assert_eq!(fs::read(folder.path("doubler.wasm")).unwrap(), b"before");
    assert_eq!(folder.names(), names);
}

#[test]
fn a_guest_that_does_not_fit_is_refused() {
    let core = wat::parse_str(REFUSING_GUEST).unwrap();
    let component = wat::parse_str("(component (core module))").unwrap();
    let parse = |text: &str| wat::parse_str(text).unwrap();
    let other_signature = REFUSING_GUEST.replace("(param i32 i32) (result i32) (i32.const 16)", "");
    for (name, guest, named) in [
        ("empty.wasm", vec![], "not WebAssembly"),
        ("text.wasm", b"(module)".to_vec(), "not WebAssembly"),
        (
            "cut-core.wasm",
            core[..core.len() - 9].to_vec(),
            "not whole",
        ),
        (
            "cut-component.wasm",
            component[..component.len() - 1].to_vec(),
            "not whole",
        ),
        ("no-infer.wasm", parse("(module)"), "infer"),
        ("other-infer.wasm", parse(&other_signature), "infer"),
        (
            "preview1.wasm",
            parse("(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func)))"),
            "wasi_snapshot_preview1",
        ),
        ("bare-component.wasm", component, "infer"),
        (
            "socket.wasm",
            parse("(component (import \"wasi:sockets/network@0.2.0\" (instance)))"),
            "wasi:sockets/network",
        ),
    ] {
        let folder = Folder::new();
        let guest = folder.put(name, &guest);
        refuses(&folder, &["--guest", &guest], 1, &[&guest, named]);
    }
}

#[test]
fn a_model_that_is_none_is_refused() {
    let doubler = onnx::doubler();
    for (bytes, named) in [
        (vec![], "ONNX"),
        (b"not a model".to_vec(), "ONNX"),
        (vec![0xff; 4096], "ONNX"),
        (doubler[..doubler.len() - 3].to_vec(), "ONNX"),
        (onnx::model("NoSuchOperator"), "NoSuchOperator"),
    ] {
        let folder = Folder::new();
        let model = folder.put("doubler.onnx", &bytes);
        refuses(&folder, &[], 1, &[&model, named]);
    }
    let folder = Folder::new();
    fs::remove_file(folder.path("doubler.onnx")).unwrap();
    refuses(&folder, &[], 1, &[&folder.path("doubler.onnx")]);
}

#[test]
fn a_manifest_that_breaks_a_rule_is_refused() {
    let folder = Folder::new();
    for (arguments, named) in [
        (["--name", "../up"], "../up"),
        (["--name", ""], "name"),
        (["--version", "latest"], "latest"),
        (["--graph-name", "a b"], "a b"),
    ] {
        refuses(&folder, &arguments, 64, &[named]);
    }
    for (json, named) in [
        ("{", "EOF"),
        ("{\"format\": 9}", "missing field"),
        ("[]", "invalid"),
    ] {
        let manifest = folder.put("m.json", json.as_bytes());
        refuses(&folder, &["--manifest", &manifest], 1, &[&manifest, named]);
    }
}

#[test]
fn a_module_says_what_its_graph_gives_and_not_what_the_file_says_wrongly() {
    let folder = Folder::new();
    folder.put("doubler.onnx", &onnx::boasting(onnx::FLOAT, 10));
    let packed = folder.pack(&[]);
    for told in ["output \"y\"", "[1, 10]", "the graph gives [1, 4]"] {
        assert!(packed.err.contains(told), "{}", packed.err);
    }
    packed.ok();
    let seen = inspect(&folder.path("doubler.wasm"));
    assert_eq!(seen["manifest"]["outputs"][0]["shape"], json!([1, 4]));
    folder.put("doubler.onnx", &onnx::boasting(onnx::INT64, 4));
    let told = "is declared as INT64, and the graph gives FP32";
    folder.pack(&[]).fails(1, &["output \"y\"", told]);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let folder = Folder::new();
    let model = folder.path("doubler.onnx");
    let inside = folder.path("none/doubler.wasm");
    fs::create_dir(folder.path("folder")).unwrap();
    for out in [&inside, "/proc/doubler.wasm", &folder.path("folder")] {
        tidegate(&["pack", &model, "-o", out]).fails(1, &[out]);
    }
    tidegate(&["pack", &model, "-o", &model]).fails(64, &[&model]);
    assert_eq!(fs::read(&model).unwrap(), onnx::doubler());
    assert_eq!(
        folder.names(),
        [Path::new("doubler.onnx"), Path::new("folder")]
    );
}

#[test]
fn what_is_no_module_cannot_be_inspected() {
    let folder = Folder::new();
    folder.pack(&[]).ok();
    let mut module = fs::read(folder.path("doubler.wasm")).unwrap();
    let core = wat::parse_str("(module)").unwrap();
    let cut = module[..module.len() - 1].to_vec();
    let operator = module.windows(3).rposition(|window| window == b"Add");
    module[operator.unwrap()] ^= 1;
    for (bytes, named) in [
        (&b"nothing"[..], "WebAssembly"),
        (&core, "core"),
        (&cut, "WebAssembly"),
        (&module, "model"),
    ] {
        let path = folder.put("bad.wasm", bytes);
        tidegate(&["inspect", &path]).fails(1, &[&path, named]);
    }
    let missing = folder.path("none.wasm");
    tidegate(&["inspect", &missing]).fails(1, &[&missing]);
}

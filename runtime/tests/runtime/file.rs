//! Module files that were cut, changed, or never were modules.

use proptest::prelude::*;
use tidegate_graph::GraphError;
use tidegate_inference::Dtype;
use tidegate_runtime::module::{
    DELIMITER_SECTION, FILE_BYTES_MAX, GRAPH_SECTION_PREFIX, MANIFEST_SECTION,
    component_from_guest, pass_through, sha256,
};
use tidegate_runtime::{LoadError, Manifest, ModuleError, ModuleFile};
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{NodeProto, StringStringEntryProto, TensorProto};

use crate::fixture::{
    attribute, budget, floats, identity, load, neighbour_answers, node, onnx, packed, runtime,
    spec, value,
};

fn section(name: &str, data: &[u8]) -> Vec<u8> {
    let section = wasm_encoder::CustomSection {
        name: name.into(),
        data: data.into(),
    };
    let mut bytes = vec![0];
    wasm_encoder::Encode::encode(&section, &mut bytes);
    bytes
}

fn parse(bytes: Vec<u8>) -> Result<ModuleFile, ModuleError> {
    ModuleFile::parse(bytes.into())
}

#[test]
fn what_is_assembled_reads_back() {
    let onnx = identity();
    let file = packed(&onnx);
    let again = ModuleFile::parse(file.file().clone()).unwrap();
    assert_eq!(again.manifest(), file.manifest());
    assert_eq!(again.digest(), sha256(file.file()));
    assert_eq!(again.graphs()[0].onnx, onnx);
    assert_eq!(again.graphs()[0].digest, sha256(&onnx));
    let imports = again.imports();
    assert!(
        imports.iter().all(|name| name.starts_with("wasi:nn/")),
        "{imports:?}"
    );
    let named = |name: &str| again.sections().iter().find(|section| section.name == name);
    let graph = named(&format!("{GRAPH_SECTION_PREFIX}g")).unwrap();
    assert!(graph.bytes >= onnx.len());
    assert!(named(MANIFEST_SECTION).is_some() && named("core module").is_some());
}

#[test]
fn reading_copies_no_graph() {
    let file = packed(&identity());
    let outer = file.file().as_ptr_range();
    let inner = file.graphs()[0].onnx.as_ptr_range();
    assert!(outer.start <= inner.start && inner.end <= outer.end);
}

#[test]
fn a_module_cut_anywhere_is_refused() {
    let file = packed(&identity()).file().clone();
    // The delimiter at the end holds nothing: without it the module is the same.
    let content = file.len() - section(DELIMITER_SECTION, &[0; 16]).len();
    for len in (0..file.len()).filter(|len| *len != content) {
        assert!(
            ModuleFile::parse(file.slice(..len)).is_err(),
            "cut to {len} bytes"
        );
    }
}

#[test]
fn a_flipped_bit_is_refused_or_harmless() {
    let runtime = runtime();
    let neighbour = load(&runtime, &packed(&identity()));
    let file = packed(&identity()).file().clone();
    for at in (0..file.len() * 8).step_by(97) {
        let mut changed = file.to_vec();
        changed[at / 8] ^= 1 << (at % 8);
        if let Ok(model) = runtime.load(changed.into()) {
            // Whatever it is now, it answers or fails.
            drop(model.infer(vec![floats("x", &[2], &[1.0, 2.0])], &budget()));
        }
    }
    neighbour_answers(&neighbour);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn noise_is_no_module(noise in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(parse(noise.clone()).is_err());
        prop_assert!(tidegate_graph::describe(&noise).is_err());
        let component = wat::parse_str("(component)").unwrap();
        prop_assert!(parse([component, noise].concat()).is_err());
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    #[track_caller]
    fn check(bytes: Vec<u8>, message: &str) {
        let error = parse(bytes).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        let text = format!("{error}: {}", source.unwrap_or_default());
        assert!(text.contains(message), "{text}");
    }
    let component = wat::parse_str("(component)").unwrap();
    let file = packed(&identity()).file().to_vec();
    check(b"PK\x03\x04".to_vec(), "not a WebAssembly component");
    check(
        wat::parse_str("(module)").unwrap(),
        "core WebAssembly module",
    );
    check(component.clone(), "no tidegate:manifest section");
    let manifest = |json: &[u8]| [component.clone(), section(MANIFEST_SECTION, json)].concat();
    check(manifest(b"{"), "EOF while parsing");
    check(manifest(b"{}"), "missing field");
    check(manifest(&vec![b' '; 300 << 10]), "bytes of manifest");
    let again = section(MANIFEST_SECTION, b"{}");
    check(
        [file.clone(), again].concat(),
        "\"tidegate:manifest\" occurs twice",
    );
    let again = section("tidegate:graph:g", b"");
    check([file.clone(), again].concat(), ":g\" occurs twice");
    let other = section("tidegate:graph:h", b"");
    check([file.clone(), other].concat(), "not in the manifest");
    let many: Vec<u8> = (0..17)
        .flat_map(|i| section(&format!("tidegate:graph:{i}"), b""))
        .collect();
    check([component.clone(), many].concat(), "more than 16 graphs");
    let many: Vec<u8> = (0..5000).flat_map(|_| section("x", b"")).collect();
    check(
        [component.clone(), many].concat(),
        "more than 4096 sections",
    );

    // The last byte of the graph: only the delimiter follows.
    let at = file.len() - section(DELIMITER_SECTION, &[0; 16]).len() - 1;
    let mut changed = file.clone();
    changed[at] ^= 1;
    check(changed, "the manifest says sha256:");
    let graph_at = file
        .windows(7)
        .rposition(|window| window == b":graph:")
        .unwrap();
    let mut renamed = file;
    renamed[graph_at + 7] = b'h';
    check(
        renamed,
        "\"g\" is in the manifest, but its section is missing",
    );
}

#[test]
fn sections_of_nested_components_are_not_ours() {
    let inner = section(MANIFEST_SECTION, b"{}");
    let module = [b"\0asm\x01\0\0\0".to_vec(), inner].concat();
    let mut component = wasm_encoder::Component::new();
    component.section(&wasm_encoder::RawSection {
        id: wasm_encoder::ComponentSectionId::CoreModule.into(),
        data: &module,
    });
    let error = parse(component.finish()).unwrap_err();
    assert!(matches!(error, ModuleError::NoManifest), "{error}");
}

#[test]
fn a_file_above_the_limit_is_not_looked_at() {
    let onnx = vec![0; FILE_BYTES_MAX];
    let component = wat::parse_str("(component)").unwrap();
    let manifest = Manifest::new("m", "1", vec![], vec![spec("y", Dtype::Fp32, &[])]);
    let error = ModuleFile::assemble(&component, manifest, &[("g", &onnx)]).unwrap_err();
    assert!(matches!(error, ModuleError::TooLarge), "{error}");
}

#[test]
fn graphs_that_cannot_be_used_are_refused_when_the_module_is_loaded() {
    let runtime = runtime();
    let neighbour = load(&runtime, &packed(&identity()));
    let check = |onnx: &[u8], message: &str| {
        let floats = |name| vec![spec(name, Dtype::Fp32, &[2])];
        let manifest = Manifest::new("m", "1", floats("x"), floats("y"));
        let guest = pass_through("g").unwrap();
        let file = ModuleFile::assemble(&guest, manifest, &[("g", onnx)]).unwrap();
        let error = runtime.load(file.file().clone()).unwrap_err();
        let LoadError::Graph { name, source } = &error else {
            panic!("{error}")
        };
        assert_eq!(name, "g");
        assert!(source.to_string().contains(message), "{source}");
        neighbour_answers(&neighbour);
    };
    let float = |name: &str| value(name, DataType::Float, vec![2.into()]);
    check(b"", "holds no graph");
    check(b"this is not a model", "not an ONNX file");
    check(&identity()[..40], "not an ONNX file");
    let unknown = vec![node("Frobnicate", &["x"], "y")];
    check(
        &onnx(vec![float("x")], vec![], unknown, vec![float("y")]),
        "[\"Frobnicate\"]",
    );
    let dangling = vec![node("Identity", &["z"], "y")];
    check(
        &onnx(vec![float("x")], vec![], dangling, vec![float("y")]),
        "\"z\"",
    );
    check(
        &onnx(vec![float("x")], vec![], vec![], vec![float("y")]),
        "nothing makes the output \"y\"",
    );
    let deep = "(".repeat(1 << 20);
    let deep = value("x", DataType::Float, vec![deep.as_str().into()]);
    let same = vec![node("Identity", &["x"], "y")];
    check(
        &onnx(vec![deep], vec![], same, vec![float("y")]),
        "axis is too long",
    );
}

#[test]
fn describing_reads_the_declarations() {
    let inputs = vec![
        value(
            "a",
            DataType::Int64,
            vec!["batch".into(), 3.into(), (-1).into()],
        ),
        value("w", DataType::Float, vec![1.into()]),
        value("s", DataType::String, vec![]),
    ];
    let weights = TensorProto {
        name: "w".to_owned(),
        dims: vec![1],
        data_type: DataType::Float.into(),
        float_data: vec![1.0],
        ..Default::default()
    };
    let outputs = vec![value("y", DataType::Bool, vec![0.into()])];
    let nodes = vec![node("NoSuchOperator", &["a"], "y")];
    let bytes = onnx(inputs, vec![weights], nodes, outputs);
    let (inputs, outputs) = tidegate_graph::describe(&bytes).unwrap();
    let expected = [
        spec("a", Dtype::Int64, &[-1, 3, -1]),
        spec("s", Dtype::Bytes, &[]),
    ];
    assert_eq!(inputs, expected);
    assert_eq!(outputs, [spec("y", Dtype::Bool, &[0])]);
}

#[test]
fn values_that_cannot_be_served_are_named() {
    let x = || value("x", DataType::Float, vec![]);
    let check = |bad, message: &str| {
        let bytes = onnx(vec![x(), bad], vec![], vec![], vec![x()]);
        let error = tidegate_graph::describe(&bytes).unwrap_err();
        assert!(matches!(error, GraphError::Value { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("input \"bad\"") && text.contains(message),
            "{text}"
        );
    };
    check(value("bad", DataType::Complex64, vec![]), "COMPLEX64");
    check(value("bad", DataType::Float8e5m2, vec![]), "FLOAT8E5M2");
    let mut untyped = x();
    untyped.name = "bad".to_owned();
    untyped.r#type = None;
    check(untyped, "not declared as a tensor");
    let mut shapeless = value("bad", DataType::Float, vec![]);
    let kind = shapeless.r#type.as_mut().unwrap().value.as_mut().unwrap();
    let tract_onnx::pb::type_proto::Value::TensorType(tensor) = kind;
    tensor.shape = None;
    check(shapeless, "no declared shape");
}

#[test]
fn data_in_another_file_is_refused_and_never_read() {
    // Relative to where the tests run, the file is there.
    assert!(std::path::Path::new("Cargo.toml").exists());
    let outside = |name: &str, raw_data: &[u8]| TensorProto {
        name: name.to_owned(),
        dims: vec![2],
        data_type: DataType::Float.into(),
        raw_data: raw_data.to_vec(),
        data_location: Some(DataLocation::External.into()),
        external_data: vec![StringStringEntryProto {
            key: "location".to_owned(),
            value: "Cargo.toml".to_owned(),
        }],
        ..TensorProto::default()
    };
    let float = |name: &str| value(name, DataType::Float, vec![2.into()]);
    let check = |constants, constant: Option<TensorProto>, name: &str| {
        let mut nodes = vec![node("Add", &["x", "w"], "y")];
        nodes.extend(constant.map(|tensor| NodeProto {
            attribute: vec![attribute("value", tensor)],
            ..node("Constant", &[], "w")
        }));
        let bytes = onnx(vec![float("x")], constants, nodes, vec![float("y")]);
        let error = tidegate_graph::describe(&bytes).unwrap_err();
        assert!(
            matches!(&error, GraphError::ExternalData { tensor } if tensor == name),
            "{error}"
        );
        assert!(error.to_string().contains("in another file"), "{error}");
        // A module that was assembled without describing its graph.
        let floats = |name: &str| vec![spec(name, Dtype::Fp32, &[2])];
        let manifest = Manifest::new("m", "1.0.0", floats("x"), floats("y"));
        let guest = pass_through("g").unwrap();
        let file = ModuleFile::assemble(&guest, manifest, &[("g", &bytes)]).unwrap();
        let error = runtime().load(file.file().clone()).unwrap_err();
        assert!(
            matches!(
                &error,
                LoadError::Graph {
                    source: GraphError::ExternalData { .. },
                    ..
                }
            ),
            "{error}"
        );
    };
    check(vec![outside("w", b"")], None, "w");
    check(vec![outside("w", &[0; 8])], None, "w");
    check(vec![], Some(outside("value", b"")), "value");
    check(vec![], Some(outside("", b"")), "Constant-w");
}

#[test]
fn what_the_engine_says_of_a_graph_is_short() {
    let long = "n".repeat(5000);
    let check = |nodes| {
        let float = |name: &str| value(name, DataType::Float, vec![2.into()]);
        let bytes = onnx(vec![float("x")], vec![], nodes, vec![float("y")]);
        let floats = |name: &str| vec![spec(name, Dtype::Fp32, &[2])];
        let manifest = Manifest::new("m", "1.0.0", floats("x"), floats("y"));
        let guest = pass_through("g").unwrap();
        let file = ModuleFile::assemble(&guest, manifest, &[("g", &bytes)]).unwrap();
        let LoadError::Graph { source, .. } = runtime().load(file.file().clone()).unwrap_err()
        else {
            panic!("refused, but not for its graph");
        };
        let text = source.to_string();
        let longest = text.split(": ").map(|cause| cause.chars().count()).max();
        assert!(longest <= Some(300), "{text}");
        assert!(text.contains("nnn") && !text.contains('\n'), "{text}");
    };
    // It lacks its axis; the engine prints the node's name.
    let mut joined = node("Concat", &["x", "x"], "y");
    joined.name.clone_from(&long);
    check(vec![joined]);
    check(vec![node(&long, &["x"], "y")]);
    check(vec![node("Add", &["x", &long], "y")]);
}

#[test]
fn a_guest_that_is_not_webassembly_makes_no_component() {
    assert!(component_from_guest(b"#!/bin/sh").is_err());
    let plain = wat::parse_str("(module (import \"env\" \"f\" (func)))").unwrap();
    assert!(component_from_guest(&plain).is_err());
    let component = wat::parse_str("(component)").unwrap();
    assert_eq!(component_from_guest(&component).unwrap(), component);
    assert!(pass_through(&"n".repeat(129)).is_err());
}

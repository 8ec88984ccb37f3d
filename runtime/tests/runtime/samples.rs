//! Samples in a module: what they prove, and what is refused in their place.

use tidegate_inference::{Dtype, NamedTensor};
use tidegate_runtime::module::{DELIMITER_SECTION, SAMPLES_SECTION, pass_through};
use tidegate_runtime::samples::{CheckSamplesError, Sample, Tolerance, encode};
use tidegate_runtime::{Manifest, ModuleError, ModuleFile};
use tract_onnx::pb::tensor_proto::DataType;

use crate::fixture::{
    floats, guest, identity, load, node, onnx, packed, runtime, spec, tensor, value,
};

/// `y = x + x` for any number of floats.
fn doubler() -> Vec<u8> {
    onnx(
        vec![value("x", DataType::Float, vec!["n".into()])],
        vec![],
        vec![node("Add", &["x", "x"], "y")],
        vec![value("y", DataType::Float, vec!["n".into()])],
    )
}

fn sample(inputs: Vec<NamedTensor>, outputs: Vec<NamedTensor>) -> Sample {
    Sample { inputs, outputs }
}

/// `wanted` for `given`, of the shape that they have.
fn doubled(given: &[f32], wanted: &[f32]) -> Sample {
    sample(
        vec![floats("x", &[given.len()], given)],
        vec![floats("y", &[wanted.len()], wanted)],
    )
}

fn with_samples(samples: &[Sample]) -> Result<ModuleFile, ModuleError> {
    let onnx = doubler();
    let (inputs, outputs) = tidegate_graph::describe(&onnx).unwrap();
    let manifest = Manifest::new("model", "1.0.0", inputs, outputs);
    let guest = pass_through("g").unwrap();
    ModuleFile::assemble_with_samples(&guest, manifest, &[("g", &onnx)], samples)
}

#[test]
fn samples_of_several_shapes_are_carried_and_reproduced() {
    let samples = [
        doubled(&[1.0], &[2.0]),
        doubled(&[1.0, -2.5, 0.0], &[2.0, -5.0, 0.0]),
    ];
    let file = with_samples(&samples).unwrap();
    assert_eq!(file.samples(), samples);
    let data = file.samples()[0].inputs[0].tensor.data().as_ptr();
    assert!(file.file().as_ptr_range().contains(&data));
    let report = load(&runtime(), &file)
        .check_samples(Tolerance::default())
        .unwrap();
    assert!(report.agrees());
    assert_eq!(
        (report.samples.len(), report.first_disagreement()),
        (2, None)
    );
}

#[test]
fn a_result_that_the_author_did_not_see_is_found() {
    let file = with_samples(&[doubled(&[1.0], &[2.0]), doubled(&[1.0, 2.0], &[2.0, 4.5])]).unwrap();
    let report = load(&runtime(), &file)
        .check_samples(Tolerance::default())
        .unwrap();
    assert!(!report.agrees() && report.samples[0].agrees());
    let said = report.first_disagreement().unwrap();
    assert!(
        said.contains("sample 1") && said.contains("4 for 4.5 at 1"),
        "{said}"
    );
    let wide = Tolerance {
        relative: 0.2,
        absolute: 0.0,
    };
    assert!(
        load(&runtime(), &file)
            .check_samples(wide)
            .unwrap()
            .agrees()
    );
}

#[test]
fn another_shape_than_the_authors_is_found() {
    let file = with_samples(&[doubled(&[1.0, 2.0], &[2.0])]).unwrap();
    let report = load(&runtime(), &file)
        .check_samples(Tolerance::default())
        .unwrap();
    assert_eq!(
        report.first_disagreement().unwrap(),
        "sample 0, output \"y\": it has shape [2]"
    );
}

#[test]
fn a_run_that_fails_is_a_disagreement() {
    let guest = guest("", "", "unreachable");
    let specs = |name| vec![spec(name, Dtype::Fp32, &[1])];
    let manifest = Manifest::new("m", "1.0.0", specs("x"), specs("y"));
    let samples = [doubled(&[1.0], &[2.0])];
    let file = ModuleFile::assemble_with_samples(&guest, manifest, &[], &samples).unwrap();
    let report = load(&runtime(), &file)
        .check_samples(Tolerance::default())
        .unwrap();
    let said = report.first_disagreement().unwrap();
    assert!(
        !report.agrees() && said.contains("sample 0 failed"),
        "{said}"
    );
}

#[test]
fn without_samples_there_is_nothing_to_check() {
    let model = load(&runtime(), &packed(&identity()));
    let checked = model.check_samples(Tolerance::default());
    assert_eq!(checked, Err(CheckSamplesError::NoSamples));
}

#[test]
fn samples_of_another_model_are_refused() {
    let check = |sample: Sample, words: &str| {
        let error = with_samples(&[doubled(&[1.0], &[2.0]), sample]).unwrap_err();
        let ModuleError::Samples { source } = error else {
            panic!("{error}");
        };
        let text = source.to_string();
        assert!(text.contains("sample 1") && text.contains(words), "{text}");
    };
    let x = || vec![floats("x", &[1], &[1.0])];
    let y = || floats("y", &[1], &[2.0]);
    check(sample(vec![], vec![y()]), "\"x\" is missing");
    check(
        sample(vec![floats("z", &[1], &[1.0])], vec![y()]),
        "no input \"z\"",
    );
    check(sample(x(), vec![]), "no reference outputs");
    check(
        sample(x(), vec![floats("z", &[1], &[1.0])]),
        "no output \"z\"",
    );
    check(sample(x(), vec![y(), y()]), "\"y\" is given twice");
    check(
        sample(x(), vec![tensor("y", Dtype::Int32, &[1], vec![0; 4])]),
        "\"y\" is FP32",
    );
}

#[test]
fn a_section_of_samples_that_is_malformed_or_there_twice_is_refused() {
    let section = |data: &[u8]| {
        let section = wasm_encoder::CustomSection {
            name: SAMPLES_SECTION.into(),
            data: data.into(),
        };
        let mut bytes = vec![0];
        wasm_encoder::Encode::encode(&section, &mut bytes);
        bytes
    };
    let plain = with_samples(&[]).unwrap();
    let good = encode(&[doubled(&[1.0], &[2.0])]).unwrap();
    let parse = |sections: &[Vec<u8>]| {
        ModuleFile::parse([&plain.file()[..], &sections.concat()].concat().into())
    };
    assert_eq!(parse(&[section(&good)]).unwrap().samples().len(), 1);
    let twice = parse(&[section(&good), section(&good)]);
    assert!(
        matches!(twice, Err(ModuleError::DuplicateSection { .. })),
        "{twice:?}"
    );
    let cut = parse(&[section(&good[..good.len() - 1])]);
    assert!(matches!(cut, Err(ModuleError::Samples { .. })), "{cut:?}");
}

#[test]
fn code_graphs_and_samples_are_parts_of_their_own() {
    let file = with_samples(&[doubled(&[1.0], &[2.0])]).unwrap();
    let names: Vec<&str> = file
        .sections()
        .iter()
        .map(|section| &*section.name)
        .collect();
    let from_manifest = names
        .iter()
        .position(|name| *name == "tidegate:manifest")
        .unwrap();
    assert_eq!(
        names[from_manifest..],
        [
            "tidegate:manifest",
            DELIMITER_SECTION,
            "tidegate:graph:g",
            DELIMITER_SECTION,
            SAMPLES_SECTION,
            DELIMITER_SECTION,
        ]
    );
    assert_eq!(
        with_samples(&[doubled(&[1.0], &[2.0])]).unwrap().file(),
        file.file()
    );
}

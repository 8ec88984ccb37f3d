//! Real models give what ONNX Runtime gives, where a folder of them is at hand.
//!
//! `TIDEGATE_DATA` names a folder whose `models/NAME` hold `model.onnx`, inputs `in_K_I.npy` and outputs
//! `out_K_J.npy` of sample K. Without the variable there is nothing to compare with; with it, an
//! empty or partial folder is a failure.

use std::error::Error;
use std::path::Path;

use tidegate_inference::{Dtype, NamedTensor, Shape, Tensor};
use tidegate_runtime::Runtime;

use crate::fixture::{as_floats, budget, packed, runtime};

/// The models that are compared.
const MODELS: [&str; 18] = [
    "blazeface_front",
    "credit_gbt",
    "credit_logit",
    "credit_mlp",
    "credit_mlp_core",
    "credit_rf",
    "digits_mobilenetv2_035",
    "light_resnet50",
    "light_shufflenet",
    "light_squeezenet",
    "magika",
    "minilm_l6_int8",
    "mtcnn_pnet",
    "ppocr_cls",
    "ppocr_det",
    "ppocr_rec",
    "silero_vad_ov16k",
    "ultraface320",
];

#[test]
fn real_models_give_what_onnx_runtime_gives() {
    let Some(data) = std::env::var_os("TIDEGATE_DATA") else {
        println!("TIDEGATE_DATA is not set: no real models to compare with");
        return;
    };
    let runtime = runtime();
    let failures: Vec<String> = MODELS
        .iter()
        .filter_map(|name| {
            let folder = Path::new(&data).join("models").join(name);
            let error = compare(&runtime, &folder).err()?;
            Some(format!("{name}: {error}"))
        })
        .collect();
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Runs every sample of a model, or says where it first differs.
fn compare(runtime: &Runtime, folder: &Path) -> Result<(), Box<dyn Error>> {
    let file = packed(&std::fs::read(folder.join("model.onnx"))?);
    let model = runtime.load(file.file().clone()).map_err(|error| {
        let source = error.source().map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    })?;
    let mut samples = 0;
    while folder.join(format!("in_{samples}_0.npy")).exists() {
        let read = |kind: &str, index: usize| {
            read_npy(&folder.join(format!("{kind}_{samples}_{index}.npy")))
        };
        let specs = &file.manifest().inputs;
        let inputs = specs.iter().enumerate().map(|(index, spec)| NamedTensor {
            name: spec.name.clone(),
            tensor: read("in", index),
        });
        let outputs = model.infer(inputs.collect(), &budget())?;
        for (index, output) in outputs.iter().enumerate() {
            close(&output.tensor, &read("out", index))
                .map_err(|what| format!("sample {samples}, output {:?}: {what}", output.name))?;
        }
        samples += 1;
    }
    if samples == 0 {
        return Err("there are no samples".into());
    }
    Ok(())
}

/// How far an element may be from the wanted one, of itself and at all.
const RELATIVE: f32 = 1e-3;
const ABSOLUTE: f32 = 1e-5;

fn close(got: &Tensor, wanted: &Tensor) -> Result<(), String> {
    if got.shape() != wanted.shape() {
        return Err(format!("{got:?} is not {wanted:?}"));
    }
    if wanted.dtype() != Dtype::Fp32 {
        return match got.dtype() == wanted.dtype() && got.data() == wanted.data() {
            true => Ok(()),
            false => Err(format!("{:?} is not {:?}", got.data(), wanted.data())),
        };
    }
    let (got, wanted) = (as_floats(got), as_floats(wanted));
    for (index, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
        // Written so that a NaN differs from everything.
        let is_close = (got - wanted).abs() <= ABSOLUTE + RELATIVE * wanted.abs();
        if !is_close {
            return Err(format!("element {index} is {got}, not {wanted}"));
        }
    }
    Ok(())
}

/// A NumPy array: a magic number, a header in Python's syntax, and the elements.
fn read_npy(path: &Path) -> Tensor {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\0", "{path:?}");
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).unwrap();
    assert!(header.contains("'fortran_order': False"), "{path:?}");
    let field = |key: &str, end: char| {
        let (_, rest) = header.split_once(&format!("'{key}': ")).unwrap();
        rest.split_once(end).unwrap().0.to_owned()
    };
    let dtype = match field("descr", ',').as_str() {
        "'<f4'" => Dtype::Fp32,
        "'<i4'" => Dtype::Int32,
        "'<i8'" => Dtype::Int64,
        other => panic!("{path:?} has elements {other}"),
    };
    let shape: Shape = field("shape", ')')
        .trim_start_matches('(')
        .split(',')
        .filter(|extent| !extent.trim().is_empty())
        .map(|extent| extent.trim().parse().unwrap())
        .collect();
    Tensor::new(dtype, shape, bytes[start..].to_vec().into()).unwrap()
}

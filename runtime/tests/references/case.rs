//! One reference case: a model, and data sets of inputs and wanted outputs.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;
use tidegate_inference::{Dtype, NamedTensor, Shape, Tensor};
use tidegate_runtime::module::pass_through;
use tidegate_runtime::{Budget, Manifest, ModuleFile, Runtime};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{ModelProto, TensorProto};

use crate::compare::compare;

/// Time enough for any case on a busy machine.
const AMPLE: Duration = Duration::from_secs(60);

/// How a case ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every output of every data set is as wanted.
    Pass,
    /// The model or a request was refused, for this reason.
    Refused(String),
    /// An output is not as wanted.
    Wrong(String),
}

/// A case that was run.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Operators of the model's outermost graph, each once.
    pub(crate) operators: BTreeSet<String>,
    pub(crate) outcome: Outcome,
}

impl Case {
    pub(crate) fn run(runtime: &Runtime, folder: &Path) -> Self {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let onnx = std::fs::read(folder.join("model.onnx")).unwrap();
        let proto = ModelProto::decode(&onnx[..]).unwrap();
        let nodes = proto.graph.iter().flat_map(|graph| &graph.node);
        let operators = nodes.map(|node| node.op_type.clone()).collect();
        let outcome = match outcome(runtime, folder, &onnx, &proto) {
            Ok(None) => Outcome::Pass,
            Ok(Some(difference)) => Outcome::Wrong(difference),
            Err(error) => Outcome::Refused(reasons(&*error)),
        };
        Self {
            name,
            operators,
            outcome,
        }
    }
}

/// Where an output first differs, if one does; why the model or a request is refused, if it is.
fn outcome(
    runtime: &Runtime,
    folder: &Path,
    onnx: &[u8],
    proto: &ModelProto,
) -> Result<Option<String>, Box<dyn Error>> {
    let (inputs, outputs) = tidegate_graph::describe(onnx)?;
    let mut manifest = Manifest::new("case", "1.0.0", inputs, outputs);
    let load = |manifest: Manifest| -> Result<_, Box<dyn Error>> {
        let module = ModuleFile::assemble(&pass_through("g")?, manifest, &[("g", onnx)])?;
        Ok(runtime.load(module.file().clone())?)
    };
    let mut model = load(manifest.clone())?;
    if !model.reconcile("g", &mut manifest.outputs)?.is_empty() {
        model = load(manifest)?;
    }
    let graph = proto.graph.as_ref().unwrap();
    for set in 0.. {
        let data = folder.join(format!("test_data_set_{set}"));
        if !data.is_dir() {
            assert!(set > 0, "{folder:?} has no data");
            break;
        }
        let mut inputs = Vec::new();
        for (index, input) in graph.input.iter().enumerate() {
            if model
                .metadata()
                .inputs
                .iter()
                .any(|spec| spec.name == input.name)
            {
                let tensor = read(&data.join(format!("input_{index}.pb")))?;
                let name = input.name.clone();
                inputs.push(NamedTensor { name, tensor });
            }
        }
        let outputs = model.infer(inputs, &Budget::until(Instant::now() + AMPLE))?;
        for (index, output) in graph.output.iter().enumerate() {
            let got = outputs.iter().find(|got| got.name == output.name).unwrap();
            let wanted = read(&data.join(format!("output_{index}.pb")))?;
            if let Some(difference) = compare(&got.tensor, &wanted) {
                return Ok(Some(format!("output {:?}: {difference}", output.name)));
            }
        }
    }
    Ok(None)
}

/// An error and what caused it, on one line.
fn reasons(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A serialised `TensorProto`. Fails on element types that requests cannot carry.
fn read(path: &Path) -> Result<Tensor, Box<dyn Error>> {
    let bytes = std::fs::read(path)?;
    let proto = TensorProto::decode(&bytes[..])?;
    let shape: Shape = proto
        .dims
        .iter()
        .map(|extent| usize::try_from(*extent))
        .collect::<Result<_, _>>()?;
    let data_type = DataType::try_from(proto.data_type)?;
    let (dtype, size) = match data_type {
        DataType::Bool => (Dtype::Bool, 1),
        DataType::Uint8 => (Dtype::Uint8, 1),
        DataType::Uint16 => (Dtype::Uint16, 2),
        DataType::Uint32 => (Dtype::Uint32, 4),
        DataType::Uint64 => (Dtype::Uint64, 8),
        DataType::Int8 => (Dtype::Int8, 1),
        DataType::Int16 => (Dtype::Int16, 2),
        DataType::Int32 => (Dtype::Int32, 4),
        DataType::Int64 => (Dtype::Int64, 8),
        DataType::Float16 => (Dtype::Fp16, 2),
        DataType::Bfloat16 => (Dtype::Bf16, 2),
        DataType::Float => (Dtype::Fp32, 4),
        DataType::Double => (Dtype::Fp64, 8),
        DataType::String => {
            let flat = Tensor::from_byte_elements(&proto.string_data);
            return Ok(Tensor::new(Dtype::Bytes, shape, flat.data().clone())?);
        }
        other => return Err(format!("element type {}", other.as_str_name()).into()),
    };
    let mut data = proto.raw_data;
    if data.is_empty() {
        let narrow = |value: i64| value.to_le_bytes()[..size].to_vec();
        let small = proto.int32_data.iter().map(|value| narrow((*value).into()));
        let large = proto.int64_data.iter().map(|value| narrow(*value));
        let unsigned = proto
            .uint64_data
            .iter()
            .map(|value| value.to_le_bytes()[..size].to_vec());
        let floats = proto
            .float_data
            .iter()
            .map(|value| value.to_le_bytes().to_vec());
        let doubles = proto
            .double_data
            .iter()
            .map(|value| value.to_le_bytes().to_vec());
        data = small
            .chain(large)
            .chain(unsigned)
            .chain(floats)
            .chain(doubles)
            .flatten()
            .collect();
    }
    Ok(Tensor::new(dtype, shape, data.into())?)
}

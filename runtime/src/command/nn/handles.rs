//! Graphs and contexts by the handles that a program has of them.
//!
//! Both are kept in the sandbox's table, whose handles know what they stand for, and so are the tensors
//! of a context. A context ends with its graph: most bindings can give back no more than that.

use bytes::Bytes;
use tidegate_inference::{NamedTensor, RANK_MAX, Shape, Tensor};
use wasmtime::component::Resource;

use super::{Done, Errno, Fault, invalid};
use crate::command::element;
use crate::command::memory::Memory;
use crate::sandbox::{HostGraph, HostTensor, PARTS_MAX, Sandbox, compute, load, too_many_parts};

/// Encodings by number, as the witx file has them first and WasmEdge those behind.
const ENCODINGS: [&str; 15] = [
    "openvino",
    "onnx",
    "tensorflow",
    "pytorch",
    "tensorflowlite",
    "autodetect",
    "ggml",
    "neural-speed",
    "burn",
    "whisper",
    "mlx",
    "piper",
    "chattts",
    "openvino-genai",
    "bitnet",
];

/// Devices by number; the last is WasmEdge's.
const TARGETS: [&str; 4] = ["cpu", "gpu", "tpu", "auto"];

/// A graph that the guest has a handle of, with the handles of its contexts.
struct Loaded {
    graph: HostGraph,
    contexts: Vec<u32>,
}

/// A graph that the guest runs.
struct Context {
    graph: HostGraph,
    /// The graph's handle.
    loaded: u32,
    inputs: Vec<Option<Resource<HostTensor>>>,
    /// Empty until the first run.
    outputs: Vec<Resource<HostTensor>>,
}

/// A graph of the parts that `list` points to, pairs of place and length.
pub(super) fn brought(
    memory: &Memory<'_>,
    sandbox: &Sandbox,
    list: (u32, u32),
    encoding: u32,
    target: u32,
) -> Result<HostGraph, Fault> {
    let named = |names: &[&'static str], number: u32| names.get(number as usize).copied();
    let encoding = named(&ENCODINGS, encoding).ok_or_else(|| {
        let message = format!("there is no encoding {encoding}");
        Fault::Answer(Errno::InvalidEncoding, message)
    })?;
    let target =
        named(&TARGETS, target).ok_or_else(|| invalid(format!("there is no target {target}")))?;
    let (at, count) = list;
    if count as usize > PARTS_MAX {
        return Err(too_many_parts().into());
    }
    let pairs = memory.numbers(at, count * 2)?;
    let parts = pairs
        .as_chunks::<2>()
        .0
        .iter()
        .map(|[at, len]| memory.bytes(*at, *len))
        .collect::<Result<Vec<_>, _>>()?;
    let terms = sandbox.terms_shared();
    terms.note_target(target);
    let brought = terms.brought.as_ref();
    let brought = brought.expect("a program may bring graphs: its terms are made so");
    Ok(load(&terms, brought, &parts, encoding)?)
}

/// Puts a graph among the guest's handles and tells it which.
pub(super) fn keep(
    memory: &mut Memory<'_>,
    sandbox: &mut Sandbox,
    graph: HostGraph,
    out: u32,
) -> Done {
    let contexts = Vec::new();
    let handle = sandbox.push(Loaded { graph, contexts })?;
    Ok(memory.put_number(out, handle.rep())?)
}

fn no_graph(handle: u32) -> Fault {
    invalid(format!("there is no graph {handle}"))
}

/// What is said where a handle is not there though the host put it there.
fn gone(error: impl std::fmt::Display) -> Fault {
    Fault::Answer(Errno::RuntimeError, error.to_string())
}

/// A context of a graph, with no input set.
pub(super) fn init_context(sandbox: &mut Sandbox, handle: u32) -> Result<u32, Fault> {
    let loaded = Resource::<Loaded>::new_own(handle);
    let graph = &sandbox
        .table
        .get(&loaded)
        .map_err(|_| no_graph(handle))?
        .graph;
    let context = Context {
        inputs: std::iter::repeat_with(|| None)
            .take(graph.graph().inputs().len())
            .collect(),
        graph: graph.clone(),
        loaded: handle,
        outputs: Vec::new(),
    };
    let context = sandbox.push(context)?.rep();
    let loaded = sandbox.table.get_mut(&loaded).map_err(gone)?;
    loaded.contexts.push(context);
    Ok(context)
}

fn context(sandbox: &mut Sandbox, handle: u32) -> Result<&mut Context, Fault> {
    sandbox
        .table
        .get_mut(&Resource::<Context>::new_own(handle))
        .map_err(|_| invalid(format!("there is no context {handle}")))
}

/// Ends a graph, with all its contexts.
pub(super) fn unload(sandbox: &mut Sandbox, handle: u32) -> Done {
    let loaded = Resource::<Loaded>::new_own(handle);
    // The table would take out what is there before it sees that it is of another kind.
    sandbox.table.get(&loaded).map_err(|_| no_graph(handle))?;
    let loaded = sandbox.table.delete(loaded).map_err(gone)?;
    for context in loaded.contexts {
        drop_context(sandbox, context)?;
    }
    Ok(())
}

/// Ends a context.
pub(super) fn finalize(sandbox: &mut Sandbox, handle: u32) -> Done {
    let loaded = Resource::new_own(context(sandbox, handle)?.loaded);
    let loaded: &mut Loaded = sandbox.table.get_mut(&loaded).map_err(gone)?;
    loaded.contexts.retain(|other| *other != handle);
    drop_context(sandbox, handle)
}

fn drop_context(sandbox: &mut Sandbox, handle: u32) -> Done {
    let context = sandbox.table.delete(Resource::<Context>::new_own(handle));
    let context = context.map_err(gone)?;
    for tensor in context.inputs.into_iter().flatten().chain(context.outputs) {
        sandbox.take_tensor(tensor).map_err(gone)?;
    }
    Ok(())
}

/// Copies a tensor out of the memory, for the next run.
pub(super) fn set_input(
    memory: &Memory<'_>,
    sandbox: &mut Sandbox,
    handle: u32,
    index: u32,
    tensor: u32,
) -> Done {
    let [shape_at, rank, kind, data_at, data_len] = memory.record(tensor)?;
    if rank as usize > RANK_MAX {
        return Err(invalid(format!(
            "a tensor has at most {RANK_MAX} axes, not {rank}"
        )));
    }
    let shape: Shape = memory
        .numbers(shape_at, rank)?
        .into_iter()
        .map(|extent| usize::try_from(extent).expect("a host's address has 32 bits or more"))
        .collect();
    let data = memory.bytes(data_at, data_len)?;
    let graph = context(sandbox, handle)?.graph.clone();
    let at = index as usize;
    let spec = graph.graph().inputs().get(at);
    let spec = spec.ok_or_else(|| invalid(format!("the graph has no input {index}")))?;
    let elements = shape
        .iter()
        .try_fold(1, |product: usize, extent| product.checked_mul(*extent))
        .unwrap_or(usize::MAX);
    // Old bindings write one byte and leave the rest of the word as it was.
    let [tag, ..] = kind.to_le_bytes();
    let dtype = element::dtype(tag, elements, data.len(), spec.dtype).map_err(invalid)?;
    if !spec.accepts(dtype, &shape) {
        return Err(invalid(format!(
            "input {index} ({:?}) takes {} of shape {:?}, not {dtype} of shape {shape:?}",
            spec.name, spec.dtype, spec.shape
        )));
    }
    sandbox.check_tensor_bytes(data.len())?;
    let tensor = Tensor::new(dtype, shape, Bytes::copy_from_slice(data));
    let tensor = tensor.map_err(|error| invalid(error.to_string()))?;
    let tensor = sandbox.push_tensor(tensor)?;
    if let Some(old) = context(sandbox, handle)?.inputs[at].replace(tensor) {
        sandbox.take_tensor(old).map_err(gone)?;
    }
    Ok(())
}

/// Runs a context on its inputs, which stay set.
pub(super) fn run(sandbox: &mut Sandbox, handle: u32) -> Done {
    let context = context(sandbox, handle)?;
    let graph = context.graph.clone();
    let old = std::mem::take(&mut context.outputs);
    let handles: Vec<_> = context
        .inputs
        .iter()
        .map(|input| input.as_ref().map(|input| Resource::new_own(input.rep())))
        .collect();
    for output in old {
        sandbox.take_tensor(output).map_err(gone)?;
    }
    let mut inputs = Vec::with_capacity(handles.len());
    for (spec, handle) in graph.graph().inputs().iter().zip(handles) {
        let name = spec.name.clone();
        let handle = handle.ok_or_else(|| invalid(format!("input {name:?} is not set")))?;
        let tensor = sandbox.tensor(&handle).map_err(gone)?.clone();
        inputs.push(NamedTensor { name, tensor });
    }
    let in_time = |sandbox: &Sandbox| {
        let checked = sandbox.check_budget();
        checked.map_err(|stop| Fault::End(stop.into()))
    };
    in_time(sandbox)?;
    let outputs = compute(sandbox, graph.graph(), inputs);
    in_time(sandbox)?;
    let outputs = outputs?.into_iter().map(|(_, output)| output).collect();
    self::context(sandbox, handle)?.outputs = outputs;
    Ok(())
}

/// The bytes of an output of the last run.
pub(super) fn output(sandbox: &mut Sandbox, handle: u32, index: u32) -> Result<Bytes, Fault> {
    let context = context(sandbox, handle)?;
    if index as usize >= context.graph.graph().outputs().len() {
        return Err(invalid(format!("the graph has no output {index}")));
    }
    let output = context.outputs.get(index as usize).ok_or_else(|| {
        let message = "the graph has not run, or its last run failed";
        Fault::Answer(Errno::RuntimeError, message.to_owned())
    })?;
    let output = Resource::new_own(output.rep());
    Ok(sandbox.tensor(&output).map_err(gone)?.data().clone())
}

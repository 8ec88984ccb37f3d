//! `wasi:nn`: tensors, graphs, contexts and errors as handles of the host.
//!
//! A guest names graphs of its own module; it cannot bring others. A run of a graph checks every
//! input against what the graph takes, so nothing that a guest passes reaches the engine unseen. What a
//! guest did wrong comes back to it as an error; what is nobody's fault is also kept in the sandbox, so
//! that the request fails with the right kind whatever the guest makes of it.

mod compute;

use std::sync::Arc;

use bytes::Bytes;
use tidegate_inference::{Dtype, NamedTensor};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType, WasmList};

use self::compute::compute;
use super::{HostTensor, Refusal, Sandbox, tensors};
use tidegate_graph::Graph;

/// `wasi:nn/tensor.tensor-type`, in the order of its declaration there.
#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
enum TensorType {
    #[component(name = "FP16")]
    Fp16,
    #[component(name = "FP32")]
    Fp32,
    #[component(name = "FP64")]
    Fp64,
    #[component(name = "BF16")]
    Bf16,
    #[component(name = "U8")]
    U8,
    #[component(name = "I32")]
    I32,
    #[component(name = "I64")]
    I64,
}

impl TensorType {
    fn dtype(self) -> Dtype {
        match self {
            Self::Fp16 => Dtype::Fp16,
            Self::Fp32 => Dtype::Fp32,
            Self::Fp64 => Dtype::Fp64,
            Self::Bf16 => Dtype::Bf16,
            Self::U8 => Dtype::Uint8,
            Self::I32 => Dtype::Int32,
            Self::I64 => Dtype::Int64,
        }
    }

    fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::Fp16 => Some(Self::Fp16),
            Dtype::Fp32 => Some(Self::Fp32),
            Dtype::Fp64 => Some(Self::Fp64),
            Dtype::Bf16 => Some(Self::Bf16),
            Dtype::Uint8 => Some(Self::U8),
            Dtype::Int32 => Some(Self::I32),
            Dtype::Int64 => Some(Self::I64),
            Dtype::Bool
            | Dtype::Uint16
            | Dtype::Uint32
            | Dtype::Uint64
            | Dtype::Int8
            | Dtype::Int16
            | Dtype::Bytes => None,
        }
    }
}

/// `wasi:nn/graph.graph-encoding`.
#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
#[expect(
    dead_code,
    reason = "the standard names more than this host gives or reads"
)]
enum GraphEncoding {
    #[component(name = "openvino")]
    Openvino,
    #[component(name = "onnx")]
    Onnx,
    #[component(name = "tensorflow")]
    Tensorflow,
    #[component(name = "pytorch")]
    Pytorch,
    #[component(name = "tensorflowlite")]
    Tensorflowlite,
    #[component(name = "ggml")]
    Ggml,
    #[component(name = "autodetect")]
    Autodetect,
}

/// `wasi:nn/graph.execution-target`.
#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
#[expect(
    dead_code,
    reason = "the standard names more than this host gives or reads"
)]
enum ExecutionTarget {
    #[component(name = "cpu")]
    Cpu,
    #[component(name = "gpu")]
    Gpu,
    #[component(name = "tpu")]
    Tpu,
}

/// `wasi:nn/errors.error-code`.
#[derive(Clone, Copy, Debug, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
#[expect(
    dead_code,
    reason = "the standard names more than this host gives or reads"
)]
enum ErrorCode {
    #[component(name = "invalid-argument")]
    InvalidArgument,
    #[component(name = "invalid-encoding")]
    InvalidEncoding,
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "runtime-error")]
    RuntimeError,
    #[component(name = "unsupported-operation")]
    UnsupportedOperation,
    #[component(name = "too-large")]
    TooLarge,
    #[component(name = "not-found")]
    NotFound,
    #[component(name = "security")]
    Security,
    #[component(name = "unknown")]
    Unknown,
}

/// An error that a guest has a handle of.
#[derive(Debug)]
struct HostError {
    code: ErrorCode,
    message: String,
}

impl HostError {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }
}

impl From<Refusal> for HostError {
    fn from(refusal: Refusal) -> Self {
        Self::new(ErrorCode::TooLarge, format!("refused by {refusal}"))
    }
}

/// A graph that a guest has a handle of.
struct HostGraph(Arc<Graph>);

/// A graph that a guest runs.
struct HostContext(Arc<Graph>);

type Store<'a> = StoreContextMut<'a, Sandbox>;
type Outputs = Vec<(String, Resource<HostTensor>)>;
type Answer<T> = wasmtime::Result<(Result<T, Resource<HostError>>,)>;

/// Answers a call with a value, or with a handle of the error.
fn answer<T>(sandbox: &mut Sandbox, result: Result<T, HostError>) -> Answer<T> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(sandbox.push(error)?),)),
    }
}

/// Drops what a handle stood for.
fn drop_handle<T: Send + 'static>(mut store: Store<'_>, rep: u32) -> wasmtime::Result<()> {
    store.data_mut().table.delete(Resource::<T>::new_own(rep))?;
    Ok(())
}

pub(super) fn add_to_linker(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    tensor(linker)?;
    graph(linker)?;
    inference(linker)?;
    errors(linker)
}

fn tensor(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    let mut tensor = linker.instance("wasi:nn/tensor@0.2.0-rc-2024-10-28")?;
    tensor.resource(
        "tensor",
        ResourceType::host::<HostTensor>(),
        |mut store: Store<'_>, rep| {
            store.data_mut().take_tensor(Resource::new_own(rep))?;
            Ok(())
        },
    )?;
    tensor.func_wrap(
        "[constructor]tensor",
        |mut store: Store<'_>, (dimensions, kind, data): (Vec<u32>, TensorType, Bytes)| {
            let tensor = tensors::tensor(&dimensions, kind.dtype(), data)
                .map_err(|reason| wasmtime::format_err!("the guest made a bad tensor: {reason}"))?;
            Ok((store.data_mut().push_tensor(tensor)?,))
        },
    )?;
    tensor.func_wrap(
        "[method]tensor.dimensions",
        |store: Store<'_>, (tensor,): (Resource<HostTensor>,)| {
            let shape = store.data().tensor(&tensor)?.shape();
            let dimensions: Result<Vec<u32>, _> =
                shape.iter().map(|extent| u32::try_from(*extent)).collect();
            Ok((dimensions?,))
        },
    )?;
    tensor.func_wrap(
        "[method]tensor.ty",
        |store: Store<'_>, (tensor,): (Resource<HostTensor>,)| {
            let dtype = store.data().tensor(&tensor)?.dtype();
            let kind = TensorType::of(dtype).ok_or_else(|| {
                wasmtime::format_err!("wasi:nn has no name for {dtype}; tidegate:model/tensors has")
            })?;
            Ok((kind,))
        },
    )?;
    tensor.func_wrap(
        "[method]tensor.data",
        |store: Store<'_>, (tensor,): (Resource<HostTensor>,)| {
            Ok((store.data().tensor(&tensor)?.data().clone(),))
        },
    )
}

fn graph(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    type Builder = WasmList<WasmList<u8>>;
    type Loaded = Answer<Resource<HostGraph>>;
    let mut graph = linker.instance("wasi:nn/graph@0.2.0-rc-2024-10-28")?;
    graph.resource(
        "graph",
        ResourceType::host::<HostGraph>(),
        drop_handle::<HostGraph>,
    )?;
    graph.func_wrap(
        "load",
        |mut store: Store<'_>, (_, _, _): (Builder, GraphEncoding, ExecutionTarget)| -> Loaded {
            let message = "a guest loads the graphs of its module by name and brings no others";
            let error = HostError::new(ErrorCode::UnsupportedOperation, message);
            answer(store.data_mut(), Err(error))
        },
    )?;
    graph.func_wrap(
        "load-by-name",
        |mut store: Store<'_>, (name,): (String,)| -> Loaded {
            let sandbox = store.data_mut();
            let found = sandbox.terms.graphs.iter().find(|graph| graph.name == name);
            let loaded = match found.map(|found| Arc::clone(&found.graph)) {
                Some(graph) => sandbox.push(HostGraph(graph)).map_err(HostError::from),
                None => {
                    let name: String = name.chars().take(128).collect();
                    let message = format!("the module has no graph {name:?}");
                    Err(HostError::new(ErrorCode::NotFound, message))
                }
            };
            answer(sandbox, loaded)
        },
    )?;
    graph.func_wrap(
        "[method]graph.init-execution-context",
        |mut store: Store<'_>, (graph,): (Resource<HostGraph>,)| -> Answer<Resource<HostContext>> {
            let sandbox = store.data_mut();
            let HostGraph(graph) = sandbox.table.get(&graph)?;
            let context = HostContext(Arc::clone(graph));
            let context = sandbox.push(context).map_err(HostError::from);
            answer(sandbox, context)
        },
    )
}

fn inference(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    type Inputs = Vec<(String, Resource<HostTensor>)>;
    let mut inference = linker.instance("wasi:nn/inference@0.2.0-rc-2024-10-28")?;
    inference.resource(
        "graph-execution-context",
        ResourceType::host::<HostContext>(),
        drop_handle::<HostContext>,
    )?;
    inference.func_wrap(
        "[method]graph-execution-context.compute",
        |mut store: Store<'_>,
         (context, inputs): (Resource<HostContext>, Inputs)|
         -> Answer<Outputs> {
            let sandbox = store.data_mut();
            let graph = Arc::clone(&sandbox.table.get(&context)?.0);
            let inputs = inputs
                .into_iter()
                .map(|(name, tensor)| {
                    let tensor = sandbox.take_tensor(tensor)?;
                    Ok(NamedTensor { name, tensor })
                })
                .collect::<wasmtime::Result<Vec<_>>>()?;
            // The guest's time is over as well, so it is not asked what it makes of it.
            sandbox.check_budget()?;
            let computed = compute(sandbox, &graph, inputs);
            sandbox.check_budget()?;
            answer(sandbox, computed)
        },
    )
}

fn errors(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    let mut errors = linker.instance("wasi:nn/errors@0.2.0-rc-2024-10-28")?;
    errors.resource(
        "error",
        ResourceType::host::<HostError>(),
        drop_handle::<HostError>,
    )?;
    errors.func_wrap(
        "[method]error.code",
        |store: Store<'_>, (error,): (Resource<HostError>,)| {
            Ok((store.data().table.get(&error)?.code,))
        },
    )?;
    errors.func_wrap(
        "[method]error.data",
        |store: Store<'_>, (error,): (Resource<HostError>,)| {
            Ok((store.data().table.get(&error)?.message.clone(),))
        },
    )
}

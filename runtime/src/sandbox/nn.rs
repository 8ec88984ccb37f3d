//! `wasi:nn`: tensors, graphs, contexts and errors as handles of the host.
//!
//! A guest names graphs that its host offers; only where the host says so may it bring others. A run
//! of a graph checks every input against what the graph takes, so nothing that a guest passes reaches
//! the engine unseen. What a guest did wrong comes back to it as an error; what is nobody's fault is
//! also kept in the sandbox, so that the request fails with the right kind whatever the guest makes of
//! it.
//!
//! The interfaces are linked for any host that keeps a [`Sandbox`]: a served module's is nothing else,
//! a command's has WASI beside it.

mod compute;
mod graphs;
mod types;

use bytes::Bytes;
use tidegate_inference::NamedTensor;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType, WasmList};

pub(crate) use self::compute::compute;
pub(crate) use self::graphs::{Brought, HostGraph, PARTS_MAX, by_name, load, too_many_parts};
pub(crate) use self::types::{ErrorCode, HostError};
use self::types::{ExecutionTarget, GraphEncoding, TensorType};
use super::{HostTensor, Sandbox, tensors};

/// A graph that a guest runs.
struct HostContext(HostGraph);

type Store<'a, H> = StoreContextMut<'a, H>;
pub(crate) type Outputs = Vec<(String, Resource<HostTensor>)>;
type Answer<T> = wasmtime::Result<(Result<T, Resource<HostError>>,)>;

/// Answers a call with a value, or with a handle of the error.
fn answer<T>(sandbox: &mut Sandbox, result: Result<T, HostError>) -> Answer<T> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(sandbox.push(error)?),)),
    }
}

/// Drops what a handle stood for.
fn drop_handle<T: Send + 'static, H: AsMut<Sandbox> + 'static>(
    mut store: Store<'_, H>,
    rep: u32,
) -> wasmtime::Result<()> {
    sandbox(&mut store)
        .table
        .delete(Resource::<T>::new_own(rep))?;
    Ok(())
}

fn sandbox<'a, H: AsMut<Sandbox> + 'static>(store: &'a mut Store<'_, H>) -> &'a mut Sandbox {
    store.data_mut().as_mut()
}

pub(crate) fn add_to_linker<H: AsMut<Sandbox> + 'static>(
    linker: &mut Linker<H>,
) -> wasmtime::Result<()> {
    tensor(linker)?;
    graph(linker)?;
    inference(linker)?;
    errors(linker)
}

fn tensor<H: AsMut<Sandbox> + 'static>(linker: &mut Linker<H>) -> wasmtime::Result<()> {
    let mut tensor = linker.instance("wasi:nn/tensor@0.2.0-rc-2024-10-28")?;
    tensor.resource(
        "tensor",
        ResourceType::host::<HostTensor>(),
        |mut store: Store<'_, H>, rep| {
            sandbox(&mut store).take_tensor(Resource::new_own(rep))?;
            Ok(())
        },
    )?;
    tensor.func_wrap(
        "[constructor]tensor",
        |mut store: Store<'_, H>, (dimensions, kind, data): (Vec<u32>, TensorType, Bytes)| {
            let tensor = tensors::tensor(&dimensions, kind.dtype(), data)
                .map_err(|reason| wasmtime::format_err!("the guest made a bad tensor: {reason}"))?;
            Ok((sandbox(&mut store).push_tensor(tensor)?,))
        },
    )?;
    tensor.func_wrap(
        "[method]tensor.dimensions",
        |mut store: Store<'_, H>, (tensor,): (Resource<HostTensor>,)| {
            let shape = sandbox(&mut store).tensor(&tensor)?.shape();
            let dimensions: Result<Vec<u32>, _> =
                shape.iter().map(|extent| u32::try_from(*extent)).collect();
            Ok((dimensions?,))
        },
    )?;
    tensor.func_wrap(
        "[method]tensor.ty",
        |mut store: Store<'_, H>, (tensor,): (Resource<HostTensor>,)| {
            let dtype = sandbox(&mut store).tensor(&tensor)?.dtype();
            let kind = TensorType::of(dtype).ok_or_else(|| {
                wasmtime::format_err!("wasi:nn has no name for {dtype}; tidegate:model/tensors has")
            })?;
            Ok((kind,))
        },
    )?;
    tensor.func_wrap(
        "[method]tensor.data",
        |mut store: Store<'_, H>, (tensor,): (Resource<HostTensor>,)| {
            Ok((sandbox(&mut store).tensor(&tensor)?.data().clone(),))
        },
    )
}

fn graph<H: AsMut<Sandbox> + 'static>(linker: &mut Linker<H>) -> wasmtime::Result<()> {
    type Builder = WasmList<WasmList<u8>>;
    type Loaded = Answer<Resource<HostGraph>>;
    let mut graph = linker.instance("wasi:nn/graph@0.2.0-rc-2024-10-28")?;
    graph.resource(
        "graph",
        ResourceType::host::<HostGraph>(),
        drop_handle::<HostGraph, H>,
    )?;
    graph.func_wrap(
        "load",
        |mut store: Store<'_, H>,
         (parts, encoding, target): (Builder, GraphEncoding, ExecutionTarget)|
         -> Loaded {
            let terms = sandbox(&mut store).terms_shared();
            let loaded = match &terms.brought {
                Some(_) if parts.len() > PARTS_MAX => Err(too_many_parts()),
                Some(brought) => {
                    terms.note_target(target.name());
                    let parts: Vec<_> = parts.iter(&mut store)?.collect::<Result<_, _>>()?;
                    let parts: Vec<_> = parts.iter().map(|part| part.as_le_slice(&store)).collect();
                    load(&terms, brought, &parts, encoding.name())
                }
                None => Err(graphs::none_brought()),
            };
            let sandbox = sandbox(&mut store);
            let loaded = loaded.and_then(|graph| Ok(sandbox.push(graph)?));
            answer(sandbox, loaded)
        },
    )?;
    graph.func_wrap(
        "load-by-name",
        |mut store: Store<'_, H>, (name,): (String,)| -> Loaded {
            let sandbox = sandbox(&mut store);
            let loaded = by_name(&sandbox.terms, &name);
            let loaded = loaded.and_then(|graph| Ok(sandbox.push(graph)?));
            answer(sandbox, loaded)
        },
    )?;
    graph.func_wrap(
        "[method]graph.init-execution-context",
        |mut store: Store<'_, H>,
         (graph,): (Resource<HostGraph>,)|
         -> Answer<Resource<HostContext>> {
            let sandbox = sandbox(&mut store);
            let context = HostContext(sandbox.table.get(&graph)?.clone());
            let context = sandbox.push(context).map_err(HostError::from);
            answer(sandbox, context)
        },
    )
}

fn inference<H: AsMut<Sandbox> + 'static>(linker: &mut Linker<H>) -> wasmtime::Result<()> {
    type Inputs = Vec<(String, Resource<HostTensor>)>;
    let mut inference = linker.instance("wasi:nn/inference@0.2.0-rc-2024-10-28")?;
    inference.resource(
        "graph-execution-context",
        ResourceType::host::<HostContext>(),
        drop_handle::<HostContext, H>,
    )?;
    inference.func_wrap(
        "[method]graph-execution-context.compute",
        |mut store: Store<'_, H>,
         (context, inputs): (Resource<HostContext>, Inputs)|
         -> Answer<Outputs> {
            let sandbox = sandbox(&mut store);
            let graph = sandbox.table.get(&context)?.0.clone();
            let inputs = inputs
                .into_iter()
                .map(|(name, tensor)| {
                    let tensor = sandbox.take_tensor(tensor)?;
                    Ok(NamedTensor { name, tensor })
                })
                .collect::<wasmtime::Result<Vec<_>>>()?;
            // The guest's time is over as well, so it is not asked what it makes of it.
            sandbox.check_budget()?;
            let computed = compute(sandbox, graph.graph(), inputs);
            sandbox.check_budget()?;
            answer(sandbox, computed)
        },
    )
}

fn errors<H: AsMut<Sandbox> + 'static>(linker: &mut Linker<H>) -> wasmtime::Result<()> {
    let mut errors = linker.instance("wasi:nn/errors@0.2.0-rc-2024-10-28")?;
    errors.resource(
        "error",
        ResourceType::host::<HostError>(),
        drop_handle::<HostError, H>,
    )?;
    errors.func_wrap(
        "[method]error.code",
        |mut store: Store<'_, H>, (error,): (Resource<HostError>,)| {
            Ok((sandbox(&mut store).table.get(&error)?.code,))
        },
    )?;
    errors.func_wrap(
        "[method]error.data",
        |mut store: Store<'_, H>, (error,): (Resource<HostError>,)| {
            Ok((sandbox(&mut store).table.get(&error)?.message.clone(),))
        },
    )
}

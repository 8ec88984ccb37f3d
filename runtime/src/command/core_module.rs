//! A core module: a command with `_start`, or a library of which one function is called.

use wasmtime::{Instance, Linker, Module, Store};
use wasmtime_wasi::p1;

use super::guest::{Guest, status};
use super::{CommandError, Ended, Options, invoke, nn};

/// Where a command begins.
const START: &str = "_start";

/// What a library runs before its functions may be called.
const INITIALIZE: &str = "_initialize";

/// Links a module, starts it, and runs it to its end.
pub(super) async fn run(
    mut store: Store<Guest>,
    module: &Module,
    options: &Options,
) -> Result<Ended, CommandError> {
    let linker = link(&mut store, module)?;
    let instance = match linker.instantiate_async(&mut store, module).await {
        Ok(instance) => instance,
        Err(error) => return ended(&store, options, Err(error), Vec::new()),
    };
    match &options.invoke {
        Some(function) => {
            let function = invoke::Function::find(&mut store, &instance, function, options)?;
            if let Err(error) = call_if_there(&mut store, &instance, INITIALIZE).await {
                return ended(&store, options, Err(error), Vec::new());
            }
            let called = function.call(&mut store).await;
            let (result, results) = match called {
                Ok(results) => (Ok(()), results),
                Err(error) => (Err(error), Vec::new()),
            };
            ended(&store, options, result, results)
        }
        None => {
            if instance.get_func(&mut store, START).is_none() {
                return Err(CommandError::NoStart { wanted: START });
            }
            let result = call_if_there(&mut store, &instance, START).await;
            ended(&store, options, result, Vec::new())
        }
    }
}

fn link(store: &mut Store<Guest>, module: &Module) -> Result<Linker<Guest>, CommandError> {
    let mut linker = Linker::new(store.engine());
    p1::add_to_linker_async(&mut linker, |guest: &mut Guest| &mut guest.wasi)
        .and_then(|()| nn::add_to_linker(&mut linker))
        .map_err(|error| link_error(&error))?;
    let mut names = Vec::new();
    for import in module.imports() {
        if linker.get_by_import(&mut *store, &import).is_none() {
            names.push(format!("{}::{}", import.module(), import.name()));
        }
    }
    if !names.is_empty() {
        return Err(CommandError::Imports { names });
    }
    linker
        .instantiate_pre(module)
        .map_err(|error| link_error(&error))?;
    Ok(linker)
}

fn link_error(error: &wasmtime::Error) -> CommandError {
    CommandError::Link {
        reason: format!("{error:#}"),
    }
}

async fn call_if_there(
    store: &mut Store<Guest>,
    instance: &Instance,
    name: &str,
) -> wasmtime::Result<()> {
    match instance.get_func(&mut *store, name) {
        Some(function) => {
            let function = function.typed::<(), ()>(&*store)?;
            function.call_async(store, ()).await
        }
        None => Ok(()),
    }
}

fn ended(
    store: &Store<Guest>,
    options: &Options,
    result: wasmtime::Result<()>,
    results: Vec<String>,
) -> Result<Ended, CommandError> {
    let status = status(store, options, result)?;
    Ok(Ended { status, results })
}

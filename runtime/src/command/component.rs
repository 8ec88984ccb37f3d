//! A component that is a command: it exports `wasi:cli/run`.

use wasmtime::Store;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi::p2::bindings::CommandPre;

use super::guest::{Guest, status};
use super::{CommandError, Ended, InvokeError, Options};
use crate::sandbox;

/// Links a component and runs it to its end.
pub(super) async fn run(
    mut store: Store<Guest>,
    component: &Component,
    options: &Options,
) -> Result<Ended, CommandError> {
    if let Some(function) = &options.invoke {
        return Err(CommandError::Invoke {
            function: function.clone(),
            source: InvokeError::Component,
        });
    }
    let link = |error: wasmtime::Error| CommandError::Link {
        reason: format!("{error:#}"),
    };
    let mut linker: Linker<Guest> = Linker::new(store.engine());
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(link)?;
    sandbox::add_to_linker(&mut linker).map_err(link)?;
    let pre = linker.instantiate_pre(component).map_err(link)?;
    let pre = CommandPre::new(pre).map_err(|_| CommandError::NoStart {
        wanted: "wasi:cli/run@0.2",
    })?;
    let result = async {
        let command = pre.instantiate_async(&mut store).await?;
        command.wasi_cli_run().call_run(&mut store).await
    };
    let (result, failed) = match result.await {
        Ok(Ok(())) => (Ok(()), false),
        // The component says that it failed, and no more.
        Ok(Err(())) => (Ok(()), true),
        Err(error) => (Err(error), false),
    };
    let status = status(&store, options, result)?.max(u8::from(failed));
    Ok(Ended {
        status,
        results: Vec::new(),
    })
}

//! What the host keeps for one program: its sandbox for graphs, and WASI beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::{Engine, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder, WasiCtxView, WasiView};

use super::{CommandError, Folder, HANDLES_MAX, Options, TABLE_ELEMENTS_MAX, graph_limits};
use crate::budget::{Budget, Stop};
use crate::limits::Limits;
use crate::sandbox::{Brought, LogGate, NamedGraph, Sandbox, Terms};
use crate::vet::Vetter;

/// A deadline that never comes: wasmtime's ticks and ours are counted from now.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// The host's side of a program.
pub(super) struct Guest {
    pub(super) sandbox: Sandbox,
    pub(super) wasi: WasiP1Ctx,
}

impl AsMut<Sandbox> for Guest {
    fn as_mut(&mut self) -> &mut Sandbox {
        &mut self.sandbox
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// A store with everything that the program gets, and the limits of what it may take.
pub(super) fn store(
    engine: &Engine,
    options: &Options,
    (graphs, vetter): (Vec<NamedGraph>, Option<Arc<Vetter>>),
    deadline: Option<Instant>,
) -> Result<Store<Guest>, CommandError> {
    let memory = options.memory_bytes_max;
    let limits = Limits {
        memory_bytes_max: memory,
        table_elements_max: TABLE_ELEMENTS_MAX,
        handles_max: HANDLES_MAX,
        tensor_bytes_max: memory,
        ..Limits::default()
    };
    let brought = Brought::new(graph_limits(), vetter, memory, options.stand_in.clone());
    let terms = Terms {
        model: options.name.clone(),
        limits,
        graphs,
        brought: Some(Arc::new(brought)),
        log: LogGate::default(),
    };
    let budget = Budget::until(deadline.unwrap_or_else(|| Instant::now() + FOREVER));
    let guest = Guest {
        sandbox: Sandbox::new(Arc::new(terms), budget, false),
        wasi: wasi(options)?,
    };
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.sandbox);
    store.set_hostcall_fuel(memory);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|context| {
        context.data().sandbox.check_budget()?;
        Ok(UpdateDeadline::Yield(1))
    });
    Ok(store)
}

fn wasi(options: &Options) -> Result<WasiP1Ctx, CommandError> {
    let mut wasi = WasiCtxBuilder::new();
    wasi.inherit_stdio()
        .arg(&options.name)
        .args(&options.arguments)
        .envs(&options.environment)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false);
    for Folder { host, guest } in &options.folders {
        wasi.preopened_dir(host, guest, FsPerms::ReadWrite)
            .map_err(|error| CommandError::Folder {
                path: host.clone(),
                reason: format!("{error:#}"),
            })?;
    }
    Ok(wasi.build_p1())
}

/// The exit status, if the program ended by itself; what went wrong otherwise.
pub(super) fn status(
    store: &Store<Guest>,
    options: &Options,
    result: wasmtime::Result<()>,
) -> Result<u8, CommandError> {
    let Err(error) = result else {
        return Ok(0);
    };
    if let Some(I32Exit(code)) = error.downcast_ref() {
        // A status that the system cannot carry must not look like success.
        return Ok(u8::try_from(*code).unwrap_or(u8::MAX));
    }
    if error.is::<Stop>() {
        return Err(CommandError::TimedOut(options.timeout.unwrap_or(FOREVER)));
    }
    let what = match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "exhausted its stack".to_owned(),
        Some(trap) => format!("trapped: {trap}"),
        None => format!("failed: {}", error.root_cause()),
    };
    let place = error
        .downcast_ref::<WasmBacktrace>()
        .and_then(|trace| trace.frames().iter().find_map(|frame| frame.func_name()))
        .map(|name| format!(" in {name:?}"));
    let refusal = store.data().sandbox.refusal();
    let after = refusal.map(|refusal| format!(", after it met {refusal}"));
    Err(CommandError::Trapped {
        what: [what, place.unwrap_or_default(), after.unwrap_or_default()].concat(),
    })
}

//! Runs WebAssembly programs that were not made for Tidegate, as their authors published them.
//!
//! A program is a core module that imports WASI preview 1 and `wasi_ephemeral_nn`, or a component that
//! imports WASI 0.2 and `wasi:nn`. It gets arguments, an environment, standard streams, clocks, random
//! numbers and the folders that are given to it; it gets no network. Graphs come from the caller by
//! name, or from the program itself.
//!
//! It runs once, for a person who waits: unlike a served module it may block, on standard input or on a
//! file, so the time limit is kept three ways. Guest code and graphs look at the deadline as they go, a
//! host call that waits is given up, and if a system call does not come back the caller is answered
//! without it, and the thread left behind.

mod component;
mod core_module;
mod element;
mod error;
mod guest;
mod invoke;
mod memory;
mod nn;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_graph::{Graph, GraphLimits};
use wasmparser::Parser;
use wasmtime::{Config, Engine, OptLevel};

pub use self::error::CommandError;
pub use self::invoke::InvokeError;
use crate::engine::Ticker;
use crate::limits::Limits;
use crate::module::{FILE_BYTES_MAX, MANIFEST_SECTION};
use crate::runnable::RunnableGraph;
use crate::sandbox::NamedGraph;
use crate::vet::{PlanVetter, Vetter, Vetting};

/// Memory of a program for which nobody chose.
pub const MEMORY_BYTES_DEFAULT: usize = 1 << 30;

/// Stack of a program's own code: twice what wasmtime gives, since programs were tried there first.
const GUEST_STACK_BYTES: usize = 1 << 20;

/// Stack of a program with the host calls on top of it, which run graphs.
const STACK_BYTES: usize = 8 << 20;

/// Elements of each table; compilers put one function pointer in each.
const TABLE_ELEMENTS_MAX: usize = 1 << 20;

/// Graphs, contexts and tensors at once. Many bindings cannot give a context back.
const HANDLES_MAX: usize = 1 << 16;

/// How long past its deadline a program may take to notice, before it is left behind.
const GRACE: Duration = Duration::from_millis(500);

/// What a program gets.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program's name, its argument 0.
    pub name: String,
    /// Its further arguments.
    pub arguments: Vec<String>,
    /// Its environment: all of it.
    pub environment: Vec<(String, String)>,
    /// The folders that it may read and write.
    pub folders: Vec<Folder>,
    /// ONNX files by the names under which it may load them.
    pub graphs: Vec<(String, Bytes)>,
    /// The graph of `graphs` that it gets when it brings one in another format than ONNX.
    pub stand_in: Option<String>,
    /// The export to call, with `arguments` as its parameters, instead of the start of a command.
    pub invoke: Option<String>,
    /// Longest run, from the end of compiling; `None` is as long as it takes.
    pub timeout: Option<Duration>,
    /// Most linear memory, most bytes of tensors, and most bytes of graphs that it brings.
    pub memory_bytes_max: usize,
    /// The child process that has to get through each graph first, those that the program brings too;
    /// `None` reads them at once.
    pub vetting: Option<Vetting>,
}

impl Options {
    /// A program that gets nothing but its name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folders: Vec::new(),
            graphs: Vec::new(),
            stand_in: None,
            invoke: None,
            timeout: None,
            memory_bytes_max: MEMORY_BYTES_DEFAULT,
            vetting: None,
        }
    }
}

/// A folder of the host under the name that a program has for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// Where it is.
    pub host: PathBuf,
    /// What the program calls it.
    pub guest: String,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status.
    pub status: u8,
    /// What an invoked function gave.
    pub results: Vec<String>,
}

/// A program that is compiled, and can run any number of times.
#[derive(Clone)]
pub struct Program {
    engine: Engine,
    code: Code,
}

#[derive(Clone)]
enum Code {
    Core(wasmtime::Module),
    Component(wasmtime::component::Component),
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}

impl Program {
    /// Compiles a program.
    pub fn compile(file: &[u8]) -> Result<Self, CommandError> {
        if file.len() > FILE_BYTES_MAX {
            return Err(CommandError::TooLarge);
        }
        let engine = engine()?;
        let code = compile(&engine, file)?;
        Ok(Self { engine, code })
    }

    /// Prepares its graphs, and runs it to its end.
    ///
    /// Blocks the calling thread, and runs the program on another. After [`CommandError::TimedOut`] that
    /// thread may still be in a system call; it ends with the process.
    pub fn run(&self, options: Options) -> Result<Ended, CommandError> {
        let vetting = options.vetting.clone();
        let vetter = vetting.map(|vetting| Arc::new(Vetter::new(vetting, None)));
        let graphs = graphs(&options, vetter.as_ref())?;
        let timeout = options.timeout;
        let program = self.clone();
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new()
            .name("tidegate-command".to_owned())
            .spawn(move || {
                // Nobody listens any more if the program was left behind.
                let _ = sender.send(run_program(&program, (graphs, vetter), &options));
            })
            .map_err(|error| engine_error(&error))?;
        let ended = match timeout {
            Some(limit) => receiver.recv_timeout(limit.saturating_add(GRACE)),
            None => receiver.recv().map_err(RecvTimeoutError::from),
        };
        match (ended, timeout) {
            (Ok(ended), _) => ended,
            (Err(RecvTimeoutError::Timeout), Some(limit)) => Err(CommandError::TimedOut(limit)),
            (Err(_), _) => match thread.join() {
                Ok(()) => unreachable!("the thread sends before it ends"),
                Err(panic) => std::panic::resume_unwind(panic),
            },
        }
    }
}

fn run_program(
    program: &Program,
    (graphs, vetter): (Vec<NamedGraph>, Option<Arc<Vetter>>),
    options: &Options,
) -> Result<Ended, CommandError> {
    let ticker = Ticker::start(&program.engine).map_err(|error| engine_error(&error))?;
    let _ticking = ticker.run();
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| engine_error(&error))?;
    let deadline = options.timeout.map(|limit| Instant::now() + limit);
    let store = guest::store(&program.engine, options, (graphs, vetter), deadline)?;
    let ended = executor.block_on(async {
        let ended = async {
            match &program.code {
                Code::Core(module) => core_module::run(store, module, options).await,
                Code::Component(component) => component::run(store, component, options).await,
            }
        };
        match (deadline, options.timeout) {
            (Some(at), Some(limit)) => tokio::time::timeout_at(at.into(), ended)
                .await
                .unwrap_or(Err(CommandError::TimedOut(limit))),
            (None, _) | (_, None) => ended.await,
        }
    });
    // A file operation that does not come back must not be waited for.
    executor.shutdown_background();
    ended
}

fn engine() -> Result<Engine, CommandError> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(STACK_BYTES)
        .cranelift_opt_level(OptLevel::Speed);
    Engine::new(&config).map_err(|error| CommandError::Engine {
        reason: format!("{error:#}"),
    })
}

fn engine_error(error: &std::io::Error) -> CommandError {
    CommandError::Engine {
        reason: error.to_string(),
    }
}

fn compile(engine: &Engine, file: &[u8]) -> Result<Code, CommandError> {
    let program = if Parser::is_core_wasm(file) {
        wasmtime::Module::from_binary(engine, file).map(Code::Core)
    } else if Parser::is_component(file) {
        if is_model_module(file) {
            return Err(CommandError::ModelModule);
        }
        wasmtime::component::Component::from_binary(engine, file).map(Code::Component)
    } else {
        return Err(CommandError::NotWasm);
    };
    program.map_err(|error| CommandError::Compile {
        reason: format!("{error:#}"),
    })
}

/// Whether a component says that it is a model module, well made or not.
fn is_model_module(file: &[u8]) -> bool {
    Parser::new(0)
        .parse_all(file)
        .map_while(Result::ok)
        .any(|payload| match payload {
            wasmparser::Payload::CustomSection(section) => section.name() == MANIFEST_SECTION,
            _ => false,
        })
}

fn graphs(
    options: &Options,
    vetter: Option<&Arc<Vetter>>,
) -> Result<Vec<NamedGraph>, CommandError> {
    if let Some(name) = &options.stand_in
        && !options.graphs.iter().any(|(given, _)| given == name)
    {
        let name = name.clone();
        return Err(CommandError::StandIn { name });
    }
    options
        .graphs
        .iter()
        .map(|(name, onnx)| {
            if let Some(vetter) = vetter {
                vetter.survives(onnx, graph_limits()).map_err(|source| {
                    let name = name.clone();
                    CommandError::Vet { name, source }
                })?;
            }
            let mut graph = Graph::read(onnx, graph_limits()).map_err(|source| {
                let name = name.clone();
                CommandError::Graph { name, source }
            })?;
            if let Some(vetter) = vetter {
                graph = PlanVetter::watch(vetter, graph, onnx.clone(), graph_limits());
            }
            Ok(NamedGraph {
                name: name.clone(),
                graph: RunnableGraph::Host(Arc::new(graph)),
            })
        })
        .collect()
}

/// The limits that graphs have everywhere.
fn graph_limits() -> GraphLimits {
    let limits = Limits::default();
    GraphLimits {
        tensor_bytes_max: limits.graph_tensor_bytes_max,
        plans_max: limits.plans_max,
    }
}

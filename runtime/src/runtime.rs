//! What all requests share, and how a module file becomes a model.

mod known;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tidegate_graph::{Graph, GraphError, GraphLimits};
use tidegate_inference::Isolation;
use wasmtime::Engine;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker};

use self::known::Known;
use crate::cache::{Cache, CodeTooLarge, Compiled, EngineId, chain, code_of};
use crate::config::RuntimeConfig;
use crate::engine::{self, StartError, Ticker};
use crate::limits::Limits;
use crate::model::{Inputs, Model, Outputs};
use crate::module::{GraphSection, ModuleError, ModuleFile};
use crate::runnable::RunnableGraph;
use crate::sandbox::{LogGate, NamedGraph, Sandbox, Terms, is_allowed, linker};
use crate::strict::{StrictError, StrictGraph, TractGuest, TractGuestError};
use crate::vet::{PlanVetter, VetError, Vetter};

/// What the metadata of a model calls what runs it.
const PLATFORM: &str = "tidegate_wasm";

/// The function that a module exports.
const INFER: &str = "infer";

/// Unit of a linear memory's size.
const PAGE_BYTES: u64 = 65536;

/// Why a module file was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not a model module.
    #[error("not a model module")]
    Module(#[from] ModuleError),
    /// More code than a module may have.
    #[error("the module has {got} bytes of code, at most {limit} are allowed")]
    CodeTooLarge {
        /// Bytes beside the outermost custom sections.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// The module wants something that no module gets.
    #[error("the module imports {name:?}, which a module may not have")]
    Import {
        /// The import.
        name: String,
    },
    /// The code is not valid, or larger than the pool's instances.
    #[error("the module's code cannot be compiled: {reason}")]
    Compile {
        /// What wasmtime says, causes included.
        reason: String,
    },
    /// An import has another type than the host's.
    #[error("the module cannot be linked: {reason}")]
    Link {
        /// What wasmtime says, causes included.
        reason: String,
    },
    /// `infer` is missing or has another type.
    #[error(
        "the module does not export `infer` as world tidegate:model/module@1.0.0 has it: {reason}"
    )]
    Export {
        /// What wasmtime says, causes included.
        reason: String,
    },
    /// The guest begins with more memory than it may have.
    #[error("the module starts with a memory of {got} bytes, at most {limit} are allowed")]
    Memory {
        /// Bytes of the largest memory.
        got: u64,
        /// The limit, of the host or of the manifest.
        limit: usize,
    },
    /// A graph cannot be prepared.
    #[error("graph {name:?} cannot be used")]
    Graph {
        /// The graph.
        name: String,
        /// Why.
        source: GraphError,
    },
    /// The module or the host's policy wants the graphs inside the sandbox, and the host cannot.
    #[error(
        "the module's graphs must run inside the sandbox, which takes the file tract-guest.wasm: none is configured"
    )]
    NoTractGuest,
    /// The engine of graphs that would run inside the sandbox cannot be used.
    #[error("the module's graphs must run inside the sandbox, and cannot")]
    TractGuest {
        /// Why.
        source: Arc<TractGuestError>,
    },
    /// A graph cannot be prepared inside the sandbox.
    #[error("graph {name:?} cannot be used inside the sandbox")]
    Strict {
        /// The graph.
        name: String,
        /// Why.
        source: StrictError,
    },
    /// A graph was kept out of this process.
    #[error("graph {name:?} cannot be used")]
    Vet {
        /// The graph.
        name: String,
        /// Why.
        source: VetError,
    },
}

/// Runs modules: one engine with its pool of instances, one interrupting thread, one cache of graphs.
pub struct Runtime {
    shared: Arc<Shared>,
    linker: Linker<Sandbox>,
    limits: Limits,
    vetter: Option<Arc<Vetter>>,
    graphs: Known<Graph>,
    strict_graphs: Known<StrictGraph>,
    tract_guest: Option<PathBuf>,
    /// Made when a module first needs it, since compiling it takes seconds.
    compiled_guest: OnceLock<Result<Arc<TractGuest>, Arc<TractGuestError>>>,
}

/// What a model needs of its runtime to run.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) ticker: Ticker,
    engine_id: EngineId,
    cache: Option<Arc<Cache>>,
}

impl Shared {
    /// Compiles WebAssembly, unless an earlier start did and kept what it made.
    pub(crate) fn compile<C: Compiled>(&self, wasm: &[u8]) -> wasmtime::Result<C> {
        match &self.cache {
            Some(cache) => cache.compiled(&self.engine, self.engine_id, wasm),
            None => C::compile(&self.engine, wasm),
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Runtime {
    /// Starts a runtime. Where nothing can be kept it logs why, and goes on without.
    pub fn start(config: RuntimeConfig) -> Result<Arc<Self>, StartError> {
        let RuntimeConfig {
            slots_max,
            limits,
            cache,
            vetting,
            tract_guest,
        } = config;
        let engine = engine::start(slots_max, &limits)?;
        let linker = linker(&engine).map_err(|error| StartError::Link {
            reason: format!("{error:#}"),
        })?;
        let ticker = Ticker::start(&engine).map_err(|source| StartError::Ticker { source })?;
        let cache = cache.and_then(|config| match Cache::open(&config) {
            Ok(cache) => Some(Arc::new(cache)),
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(reason, "compiled code is not kept");
                None
            }
        });
        let vetter = vetting.map(|vetting| Arc::new(Vetter::new(vetting, cache.clone())));
        Ok(Arc::new(Self {
            shared: Arc::new(Shared {
                engine_id: EngineId::of(&engine),
                engine,
                ticker,
                cache,
            }),
            linker,
            limits,
            vetter,
            graphs: Known::default(),
            strict_graphs: Known::default(),
            tract_guest,
            compiled_guest: OnceLock::new(),
        }))
    }

    /// Parses, checks, compiles and prepares a module: seconds of CPU, so not on an async executor. Code
    /// and verdicts on graphs that an earlier start kept are used instead.
    pub fn load(&self, file: Bytes) -> Result<Arc<Model>, LoadError> {
        self.load_module(ModuleFile::parse(file)?, Isolation::Host)
    }

    /// Reads a module file at a path, bounded, then prepares it as [`Runtime::load`] does.
    pub fn load_file(&self, path: &Path) -> Result<Arc<Model>, LoadError> {
        self.load_module(ModuleFile::read(path)?, Isolation::Host)
    }

    /// Prepares a module that was read before. Its graphs run where it asks for, and inside the sandbox if
    /// `isolation` says so.
    pub fn load_module(
        &self,
        module: ModuleFile,
        isolation: Isolation,
    ) -> Result<Arc<Model>, LoadError> {
        if let Some(name) = module.imports().iter().find(|name| !is_allowed(name)) {
            let name = name.clone();
            return Err(LoadError::Import { name });
        }
        let limits = self.limits_of(&module);
        // First, since what a graph needs beside this goes on while the code is compiled.
        let graphs = module
            .graphs()
            .iter()
            .map(|section| {
                let name = section.name.clone();
                let graph = match module.manifest().isolation.max(isolation) {
                    Isolation::Host => RunnableGraph::Host(self.graph(section)?),
                    Isolation::Strict => RunnableGraph::Strict(self.strict_graph(section)?),
                };
                Ok(NamedGraph { name, graph })
            })
            .collect::<Result<_, LoadError>>()?;
        let component = self.compile(&module, &limits)?;
        let pre = self
            .linker
            .instantiate_pre(&component)
            .map_err(|error| LoadError::Link {
                reason: format!("{error:#}"),
            })?;
        let infer = self.infer_export(&component, &pre)?;
        let metadata = module.manifest().metadata(PLATFORM);
        let terms = Terms {
            model: metadata.name.clone(),
            limits,
            graphs,
            brought: None,
            log: LogGate::default(),
        };
        Ok(Arc::new(Model {
            shared: Arc::clone(&self.shared),
            module,
            metadata,
            pre,
            infer,
            terms: Arc::new(terms),
        }))
    }

    /// The host's limits, lowered by what the module says that it needs.
    fn limits_of(&self, module: &ModuleFile) -> Limits {
        let own = module.manifest().limits;
        let mut limits = self.limits.clone();
        if let Some(bytes) = own.memory_bytes {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            limits.memory_bytes_max = limits.memory_bytes_max.min(bytes);
        }
        if let Some(time) = own.compute_ms {
            limits.run_time_max = limits.run_time_max.min(Duration::from_millis(time));
        }
        limits
    }

    fn compile(&self, module: &ModuleFile, limits: &Limits) -> Result<Component, LoadError> {
        let limit = self.limits.code_bytes_max;
        let code = code_of(module.file(), limit)
            .map_err(|CodeTooLarge { got }| LoadError::CodeTooLarge { got, limit })?;
        let compiled: wasmtime::Result<Component> = self.shared.compile(&code);
        let component = compiled.map_err(|error| LoadError::Compile {
            reason: format!("{error:#}"),
        })?;
        let limit = limits.memory_bytes_max;
        let pages = component
            .resources_required()
            .and_then(|required| required.max_initial_memory_size);
        let got = pages.unwrap_or_default().saturating_mul(PAGE_BYTES);
        if usize::try_from(got).unwrap_or(usize::MAX) > limit {
            return Err(LoadError::Memory { got, limit });
        }
        Ok(component)
    }

    fn infer_export(
        &self,
        component: &Component,
        pre: &wasmtime::component::InstancePre<Sandbox>,
    ) -> Result<wasmtime::component::ComponentExportIndex, LoadError> {
        let refuse = |reason: String| LoadError::Export { reason };
        let (item, index) = component
            .get_export(None, INFER)
            .ok_or_else(|| refuse("there is no such export".to_owned()))?;
        let ComponentItem::ComponentFunc(function) = item else {
            return Err(refuse("it is not a function".to_owned()));
        };
        function
            .typecheck::<Inputs, Outputs>(&pre.instance_type())
            .map_err(|error| refuse(format!("{error:#}")))?;
        Ok(index)
    }

    fn graph(&self, section: &GraphSection) -> Result<Arc<Graph>, LoadError> {
        let name = || section.name.clone();
        let limits = GraphLimits {
            tensor_bytes_max: self.limits.graph_tensor_bytes_max,
            plans_max: self.limits.plans_max,
        };
        self.graphs.get(section.digest, || {
            let read = match &self.vetter {
                Some(vetter) => {
                    let vetted = vetter.vet(&section.onnx, section.digest, limits);
                    vetted.map_err(|source| LoadError::Vet {
                        name: name(),
                        source,
                    })?;
                    Graph::read_only(&section.onnx, limits).map(|graph| {
                        let onnx = section.onnx.clone();
                        prepared_behind(PlanVetter::watch(vetter, graph, onnx, limits))
                    })
                }
                None => Graph::read(&section.onnx, limits).map(Arc::new),
            };
            read.map_err(|source| LoadError::Graph {
                name: name(),
                source,
            })
        })
    }

    fn strict_graph(&self, section: &GraphSection) -> Result<Arc<StrictGraph>, LoadError> {
        let path = self.tract_guest.as_ref().ok_or(LoadError::NoTractGuest)?;
        let guest = self.compiled_guest.get_or_init(|| {
            let guest = TractGuest::read(path, Arc::clone(&self.shared))?;
            Ok(Arc::new(guest))
        });
        let guest = guest.as_ref().map_err(|source| LoadError::TractGuest {
            source: Arc::clone(source),
        })?;
        self.strict_graphs.get(section.digest, || {
            let (guest, onnx) = (Arc::clone(guest), section.onnx.clone());
            let read = StrictGraph::read(guest, onnx, &self.limits);
            read.map(Arc::new).map_err(|source| LoadError::Strict {
                name: section.name.clone(),
                source,
            })
        })
    }
}

/// Prepares a graph on a thread of its own, which ends by itself: its first run waits for that. Only for a
/// graph that a child was through with, so that what it would say is known.
fn prepared_behind(graph: Graph) -> Arc<Graph> {
    let graph = Arc::new(graph);
    let prepare = {
        let graph = Arc::clone(&graph);
        move || {
            if let Err(error) = graph.prepare() {
                let reason = chain(&error);
                tracing::error!(reason, "a graph cannot be prepared that a child prepared");
            }
        }
    };
    let thread = std::thread::Builder::new().name("tidegate-prepare".to_owned());
    if let Err(error) = thread.spawn(prepare) {
        tracing::warn!(%error, "no thread to prepare a graph on: its first run does it");
    }
    graph
}

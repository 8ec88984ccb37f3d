//! Why a program did not run to its end, in words that name what and where.

use std::path::PathBuf;
use std::time::Duration;

use tidegate_graph::GraphError;

use super::InvokeError;
use crate::module::FILE_BYTES_MAX;
use crate::vet::VetError;

/// Why a program did not end by itself.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// More than [`FILE_BYTES_MAX`].
    #[error("the program has more than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// Neither a core module nor a component.
    #[error("the program is not WebAssembly")]
    NotWasm,
    /// A model module, which is called for each request and has no start.
    #[error(
        "this is a model module, not a program: `tidegate agent` serves it and `tidegate infer` asks it"
    )]
    ModelModule,
    /// The code is not valid.
    #[error("the program cannot be compiled: {reason}")]
    Compile {
        /// What wasmtime says, causes included.
        reason: String,
    },
    /// It wants what no program gets.
    #[error("the program imports {}, which it cannot have here", names.join(", "))]
    Imports {
        /// Each as `MODULE::NAME`.
        names: Vec<String>,
    },
    /// An import has another type than the host's, or an interface is missing.
    #[error("the program cannot be linked: {reason}")]
    Link {
        /// What wasmtime says, causes included.
        reason: String,
    },
    /// There is no start to call.
    #[error(
        "the program exports no {wanted}, so it is not a command: choose a function with --invoke"
    )]
    NoStart {
        /// What a command exports.
        wanted: &'static str,
    },
    /// A function cannot be called.
    #[error("cannot call {function:?}")]
    Invoke {
        /// The function.
        function: String,
        /// Why not.
        source: InvokeError,
    },
    /// A graph cannot be used.
    #[error("cannot use graph {name:?}")]
    Graph {
        /// Its name.
        name: String,
        /// Why not.
        source: GraphError,
    },
    /// The child process did not get through a graph.
    #[error("cannot use graph {name:?}")]
    Vet {
        /// Its name.
        name: String,
        /// How the child ended.
        source: VetError,
    },
    /// The graph that stands in is not among those given.
    #[error("there is no graph {name:?} to stand in")]
    StandIn {
        /// The name.
        name: String,
    },
    /// A folder cannot be opened.
    #[error("cannot open folder {}: {reason}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The engine, its thread or its executor did not start.
    #[error("cannot start the engine: {reason}")]
    Engine {
        /// What it says, causes included.
        reason: String,
    },
    /// It ran into a trap or a limit.
    #[error("the program {what}")]
    Trapped {
        /// What happened, and where.
        what: String,
    },
    /// It ran longer than it may.
    #[error("the program ran longer than {0:?}")]
    TimedOut(Duration),
}

impl CommandError {
    /// Whether other arguments would help, with the same files.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Invoke { .. } | Self::StandIn { .. } => true,
            Self::TooLarge
            | Self::NotWasm
            | Self::ModelModule
            | Self::Compile { .. }
            | Self::Imports { .. }
            | Self::Link { .. }
            | Self::NoStart { .. }
            | Self::Graph { .. }
            | Self::Vet { .. }
            | Self::Folder { .. }
            | Self::Engine { .. }
            | Self::Trapped { .. }
            | Self::TimedOut(_) => false,
        }
    }
}

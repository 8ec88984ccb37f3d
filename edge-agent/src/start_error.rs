//! Why an agent does not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tidegate_registry::TransferError;
use tidegate_registry::trust::SeenError;
use tidegate_store::FolderError;

use crate::supply::{LookError, PrepareError};

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The port cannot be listened on.
    #[error("failed to listen on {address}")]
    Listen {
        /// The address of the configuration.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The Unix socket cannot be listened on.
    #[error("failed to listen on the Unix socket {}", path.display())]
    ListenUnix {
        /// The path of the configuration.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The engine that runs modules did not start.
    #[error("failed to start the WebAssembly engine")]
    Runtime {
        /// Why.
        source: tidegate_runtime::StartError,
    },
    /// What must be remembered of the versions that proved themselves here cannot be.
    #[error("failed to read the highest versions that proved themselves here (seen.json)")]
    Memory {
        /// Why.
        source: SeenError,
    },
    /// `[trust]` wants signatures, which stay valid for ever, and nowhere can be kept which versions are out
    /// of date.
    #[error(
        "rules of [trust] need a state folder that can be written, so that versions never go back: set \
         state-dir"
    )]
    Forgetful {
        /// Why the folder cannot be used.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Modules of registries are kept in a state folder, and there is none.
    #[error("modules of registries need a state folder: set state-dir to one that can be written")]
    NoState,
    /// The store of modules cannot be used.
    #[error("failed to open the store of modules")]
    Store {
        /// Why.
        source: FolderError,
    },
    /// No client of registries can be made.
    #[error("failed to set up the client of registries")]
    Registry {
        /// Why.
        source: TransferError,
    },
    /// A module file cannot be read.
    #[error("failed to read module {}", path.display())]
    ReadModule {
        /// The module file.
        path: PathBuf,
        /// Why.
        source: LookError,
    },
    /// A module was refused.
    #[error("failed to load module {}", path.display())]
    LoadModule {
        /// The module file.
        path: PathBuf,
        /// Why.
        source: Box<PrepareError>,
    },
    /// Two modules have the same model name.
    #[error("modules {first} and {} are both named {name:?}", second.display())]
    SameName {
        /// The name.
        name: String,
        /// The module listed first.
        first: String,
        /// The module listed later.
        second: PathBuf,
    },
    /// The worker threads did not start.
    #[error("failed to start {slots} worker threads")]
    Slots {
        /// How many were wanted.
        slots: usize,
        /// Why.
        source: io::Error,
    },
    /// The links to relays could not be set up.
    #[error("failed to set up the links to relays")]
    Burst {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

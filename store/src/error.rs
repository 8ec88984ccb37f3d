//! What can go wrong with a folder: each variant says what was done to which path.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::folder::NAME_BYTES_MAX;

/// Why a folder did not do what was asked. What it held before, it still holds.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The name could leave the folder, hide in it or be a temporary file's.
    #[error(
        "{0:?} is not a name: 1 to {NAME_BYTES_MAX} of a-z A-Z 0-9 . _ -, not beginning with a dot"
    )]
    Name(String),
    /// The folder is not there and cannot be made, or is no folder.
    #[error("cannot use the folder {}", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is there and cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The disk is full, the folder is read-only, or the disk fails.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file, under the name that it was to have.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is there and cannot be taken away.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// More bytes than the folder may hold.
    #[error("{} has {bytes} bytes, above the {bytes_max} of its folder", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The limit of the folder.
        bytes_max: u64,
    },
    /// What is in use leaves too little room.
    #[error("no room for {}: {held_bytes} of {bytes_max} bytes of its folder are in use", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// Bytes of the files that somebody holds.
        held_bytes: u64,
        /// The limit of the folder.
        bytes_max: u64,
    },
    /// Another process has the folder's lock and does not go on.
    #[error("another process has kept {} locked for {waited:?}", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
}

impl FolderError {
    /// Whether the disk or a quota is full: the same call succeeds once there is room.
    #[must_use]
    pub fn is_full_disk(&self) -> bool {
        match self {
            Self::Write { source, .. } | Self::Open { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::FileTooLarge
            ),
            Self::Name(_)
            | Self::Read { .. }
            | Self::Remove { .. }
            | Self::TooLarge { .. }
            | Self::Full { .. }
            | Self::Busy { .. } => false,
        }
    }
}

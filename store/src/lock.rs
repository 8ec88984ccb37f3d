//! One change at a time to a folder, also between processes.
//!
//! The lock is the kernel's, on an open file: whoever dies lets go of it. It is kept for the moments
//! in which names change, never while bytes are written.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::FolderError;

/// The file whose lock is the folder's.
const LOCK_NAME: &str = ".lock";

/// Longest wait for another process: a thousand times what a change of names takes on a slow card.
pub const WAIT_MAX: Duration = Duration::from_secs(10);

/// Between two attempts. The kernel's own wait has no limit.
const RETRY: Duration = Duration::from_millis(5);

/// Changes of names in a folder, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock of `folder`, at most [`WAIT_MAX`].
    pub(crate) fn take(folder: &Path) -> Result<Self, FolderError> {
        let open_error = |source| FolderError::Write {
            path: folder.join(LOCK_NAME),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(folder.join(LOCK_NAME))
            .map_err(open_error)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(error)) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(open_error(error));
                }
                Err(TryLockError::Error(_) | TryLockError::WouldBlock) => {}
            }
            if began.elapsed() >= WAIT_MAX {
                return Err(FolderError::Busy {
                    path: folder.to_owned(),
                    waited: WAIT_MAX,
                });
            }
            thread::park_timeout(RETRY);
        }
    }
}

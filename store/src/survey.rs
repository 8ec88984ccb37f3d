//! What lies in a folder: the files with their sizes and last uses, and what writers that died left.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::folder::{Limits, is_name};

/// How the names of temporary files begin. No name of a file in a folder does.
pub(crate) const TEMPORARY_PREFIX: &str = ".new-";

/// A file of the folder.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) used: SystemTime,
}

/// The files, in no order. Temporary files that nobody writes any more are removed on the way.
///
/// The caller has the folder's lock: a temporary file is locked by its writer from its first moment on, so
/// one that can be locked here has no writer.
pub(crate) fn survey(folder: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let path = entry.path();
        if name.starts_with(TEMPORARY_PREFIX) {
            if !is_held(&path) {
                let _ = fs::remove_file(&path);
            }
            continue;
        }
        let Ok(metadata) = path.symlink_metadata() else {
            continue;
        };
        if is_name(name) && metadata.is_file() {
            let used = metadata.accessed().or_else(|_| metadata.modified())?;
            let bytes = metadata.len();
            entries.push(Entry { path, bytes, used });
        }
    }
    Ok(entries)
}

/// Which files go, so that the rest and `bytes` more stay within the limits: the ones whose last use is
/// longest ago, never one that is held. `Err` is the bytes of those, if they leave too little room.
pub(crate) fn victims(
    mut entries: Vec<Entry>,
    bytes: u64,
    limits: Limits,
) -> Result<Vec<PathBuf>, u64> {
    entries.sort_by_key(|entry| entry.used);
    let mut total = entries.iter().map(|entry| entry.bytes).sum::<u64>();
    let mut count = entries.len();
    let mut held_bytes = 0;
    let mut leaving = Vec::new();
    for entry in entries {
        if total.saturating_add(bytes) <= limits.bytes_max && count < limits.files_max {
            break;
        }
        if is_held(&entry.path) {
            held_bytes += entry.bytes;
            continue;
        }
        total -= entry.bytes;
        count -= 1;
        leaving.push(entry.path);
    }
    if total.saturating_add(bytes) > limits.bytes_max || count >= limits.files_max {
        return Err(held_bytes);
    }
    Ok(leaving)
}

/// Whether somebody holds a lock on the file. One that cannot be opened is taken for free.
fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock))
}

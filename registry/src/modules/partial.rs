//! A download under way: a file that only grows, locked by whoever feeds it.
//!
//! It outlives the process, so that a large module on a bad link arrives in the end. Its bytes are hashed
//! again when a download resumes; nothing is ever taken from it unverified.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ring::digest::{Context, SHA256};
use tidegate_inference::Digest;

/// A download that nobody resumed for so long is given up.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Most downloads that wait to be resumed: each may be as large as a module.
const PARTIALS_MAX: usize = 8;

/// Bytes that are read back at once.
const READ_BYTES: usize = 1 << 20;

/// Why a download cannot go to the disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartialError {
    /// Another process, or another task, downloads the same module.
    #[error("another download of the same module is under way")]
    Busy,
    /// The disk is full or fails.
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
}

/// The bytes of a module that have arrived, from its beginning.
pub(crate) struct Partial {
    path: PathBuf,
    file: File,
    hash: Context,
    bytes: u64,
}

impl Partial {
    /// Opens the file and hashes what is in it.
    pub(crate) fn open(path: PathBuf) -> Result<Self, PartialError> {
        let write_error = |source| PartialError::Write {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let mut file = options.open(&path).map_err(write_error)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(PartialError::Busy),
            Err(TryLockError::Error(source)) => return Err(write_error(source)),
        }
        // Whoever had the lock may just have made this file the module's, and another begun a new one.
        let opened = file.metadata().map_err(write_error)?.ino();
        if !path.metadata().is_ok_and(|there| there.ino() == opened) {
            return Err(PartialError::Busy);
        }
        let (mut hash, mut bytes) = (Context::new(&SHA256), 0);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let count = file.read(&mut buffer).map_err(write_error)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            bytes += count as u64;
        }
        Ok(Self {
            path,
            file,
            hash,
            bytes,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes there are.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds what arrived. When the disk is full, all of it is given back.
    pub(crate) fn append(&mut self, arrived: &[u8]) -> Result<(), PartialError> {
        if let Err(source) = self.file.write_all(arrived) {
            let _ = fs::remove_file(&self.path);
            let path = self.path.clone();
            return Err(PartialError::Write { path, source });
        }
        self.hash.update(arrived);
        self.bytes += arrived.len() as u64;
        Ok(())
    }

    /// Begins again at the first byte.
    pub(crate) fn restart(&mut self) -> Result<(), PartialError> {
        let emptied = self.file.set_len(0);
        let emptied = emptied.and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|source| PartialError::Write {
            path: self.path.clone(),
            source,
        })?;
        self.hash = Context::new(&SHA256);
        self.bytes = 0;
        Ok(())
    }

    /// The digest of the bytes so far.
    pub(crate) fn digest(&self) -> Digest {
        let digest = self.hash.clone().finish();
        Digest(digest.as_ref().try_into().expect("a SHA-256 has 32 bytes"))
    }

    /// Gives the bytes up.
    pub(crate) fn discard(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the folder of downloads, and gives up those that are old or too many.
pub(crate) fn make(folder: &Path) -> io::Result<()> {
    if let Err(error) = fs::create_dir_all(folder) {
        return match error.kind() {
            // Nothing can be downloaded then; what is there can be read.
            io::ErrorKind::ReadOnlyFilesystem => Ok(()),
            _ => Err(error),
        };
    }
    let mut waiting: Vec<(SystemTime, PathBuf)> = fs::read_dir(folder)?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
        })
        .collect();
    waiting.sort();
    let surplus = waiting.len().saturating_sub(PARTIALS_MAX);
    for (index, (modified, path)) in waiting.into_iter().enumerate() {
        let is_old = modified.elapsed().is_ok_and(|age| age > AGE_MAX);
        let is_free = || File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
        if (is_old || index < surplus) && is_free() {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

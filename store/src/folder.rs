//! A bounded folder of files by name, shared by processes.
//!
//! Reading takes no lock: a rename gives the whole file or none. Of the two moments in which names
//! change (a temporary file appears, it takes its name) each is under the folder's lock; the bytes are
//! written between them, so that a slow disk delays nobody else. The folder exceeds its limit only by the
//! files being written. The last use of a file is its access time, which `get` sets itself, since most
//! systems no longer do.

use std::fs::{self, File, FileTimes};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tempfile::{Builder, NamedTempFile};

use crate::error::FolderError;
use crate::lock::Lock;
use crate::survey::{TEMPORARY_PREFIX, survey, victims};

/// Longest name of a file, in bytes: a digest in hexadecimal and a word beside it.
pub const NAME_BYTES_MAX: usize = 128;

/// Most files of a folder unless its limits say otherwise: a look through them all takes some 10 ms.
pub const FILES_MAX: usize = 4096;

/// What a folder may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of all files together.
    pub bytes_max: u64,
    /// Most files.
    pub files_max: usize,
}

/// A folder of files by name that keeps what was used last and stays within its limits.
///
/// Several processes may use one folder at the same time.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    limits: Limits,
}

/// A file that is in use: it is not evicted while this lives, by any process.
#[derive(Debug)]
pub struct Held {
    file: File,
}

impl Held {
    /// The open file, at its beginning. It stays readable even if the name is removed.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Folder {
    /// Opens a folder for at most `bytes_max` bytes in [`FILES_MAX`] files, and makes it where it is missing.
    ///
    /// Temporary files of writers that died are removed. A folder that cannot be written can still be read.
    pub fn open(path: impl Into<PathBuf>, bytes_max: u64) -> Result<Self, FolderError> {
        let files_max = FILES_MAX;
        Self::open_within(
            path,
            Limits {
                bytes_max,
                files_max,
            },
        )
    }

    /// As [`Folder::open`], with a limit on the number of files too.
    pub fn open_within(path: impl Into<PathBuf>, limits: Limits) -> Result<Self, FolderError> {
        let path = path.into();
        let open_error = |source| FolderError::Open {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&path).map_err(open_error)?;
        match Lock::take(&path) {
            Ok(_lock) => drop(survey(&path).map_err(open_error)?),
            Err(FolderError::Write { source, .. }) if is_read_only(&source) => {
                tracing::debug!(path = %path.display(), "a folder of files is read-only");
            }
            Err(error) => return Err(error),
        }
        Ok(Self { path, limits })
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Where the file of this name is or would be.
    pub fn path(&self, name: &str) -> Result<PathBuf, FolderError> {
        if is_name(name) {
            Ok(self.path.join(name))
        } else {
            Err(FolderError::Name(name.to_owned()))
        }
    }

    /// The bytes of a file, `None` if there is none of this name. This is a use of the file.
    ///
    /// The bytes are what the disk gave, which need not be what was put: the caller authenticates them.
    pub fn get(&self, name: &str) -> Result<Option<Vec<u8>>, FolderError> {
        let path = self.path(name)?;
        let Some(mut file) = self.open_file(&path)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        let read = file.read_to_end(&mut bytes);
        read.map_err(|source| FolderError::Read { path, source })?;
        Ok(Some(bytes))
    }

    /// The open file, kept from eviction while the result lives. `None` if there is none of this name.
    pub fn hold(&self, name: &str) -> Result<Option<Held>, FolderError> {
        let path = self.path(name)?;
        // Under the lock, since an eviction could otherwise come between the opening and the holding.
        let _lock = match Lock::take(&self.path) {
            Ok(lock) => Some(lock),
            Err(FolderError::Write { source, .. }) if is_read_only(&source) => None,
            Err(error) => return Err(error),
        };
        let Some(file) = self.open_file(&path)? else {
            return Ok(None);
        };
        let held = file.lock_shared();
        held.map_err(|source| FolderError::Read { path, source })?;
        Ok(Some(Held { file }))
    }

    /// Whether there is a file of this name. This is no use of it.
    pub fn contains(&self, name: &str) -> Result<bool, FolderError> {
        Ok(is_file(&self.path(name)?))
    }

    /// Puts a file, in place of the one of this name. On return it is on the disk.
    ///
    /// Evicts the files whose last use is longest ago as far as the limits demand. After an error the folder
    /// is as it was.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
        let path = self.path(name)?;
        self.check_size(&path, bytes.len() as u64)?;
        let write_error = |source| FolderError::Write {
            path: path.clone(),
            source,
        };
        let mut file = self.temporary(&path)?;
        file.write_all(bytes).map_err(write_error)?;
        touch(file.as_file());
        file.as_file().sync_all().map_err(write_error)?;
        let _lock = Lock::take(&self.path)?;
        self.make_room(&path, bytes.len() as u64)?;
        // Its lock would look like a use of the file; the folder's covers what is left to do.
        file.as_file().unlock().map_err(write_error)?;
        let persisted = file.persist(&path);
        persisted.map_err(|error| write_error(error.error))?;
        self.sync(&path)
    }

    /// Takes a file from elsewhere on the same file system into the folder, without copying its bytes. On
    /// return it is on the disk, and no longer at `from`.
    ///
    /// As [`Folder::put`] otherwise.
    pub fn adopt(&self, name: &str, from: &Path) -> Result<(), FolderError> {
        let path = self.path(name)?;
        let write_error = |source| FolderError::Write {
            path: path.clone(),
            source,
        };
        let file = File::open(from).map_err(write_error)?;
        let bytes = file.metadata().map_err(write_error)?.len();
        self.check_size(&path, bytes)?;
        file.sync_all().map_err(write_error)?;
        let _lock = Lock::take(&self.path)?;
        self.make_room(&path, bytes)?;
        touch(&file);
        fs::rename(from, &path).map_err(write_error)?;
        self.sync(&path)
    }

    /// Takes a file away, for instance because its bytes are damaged. Gives whether it was there. Who holds it
    /// keeps what is open.
    pub fn remove(&self, name: &str) -> Result<bool, FolderError> {
        let path = self.path(name)?;
        let _lock = Lock::take(&self.path)?;
        match fs::remove_file(&path) {
            Ok(()) => self.sync(&path).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(FolderError::Remove { path, source }),
        }
    }

    /// The names that are there, in order.
    pub fn names(&self) -> Result<Vec<String>, FolderError> {
        let read_error = |source| FolderError::Read {
            path: self.path.clone(),
            source,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(read_error)? {
            let name = entry.map_err(read_error)?.file_name();
            if let Some(name) = name.to_str().filter(|name| is_name(name))
                && is_file(&self.path.join(name))
            {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open_file(&self, path: &Path) -> Result<Option<File>, FolderError> {
        // A pipe of this name would make the opening wait for ever.
        if !is_file(path) {
            return Ok(None);
        }
        let read_error = |source| FolderError::Read {
            path: path.to_owned(),
            source,
        };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read_error(error)),
        };
        self.check_size(path, file.metadata().map_err(read_error)?.len())?;
        touch(&file);
        Ok(Some(file))
    }

    fn check_size(&self, path: &Path, bytes: u64) -> Result<(), FolderError> {
        let bytes_max = self.limits.bytes_max;
        if bytes <= bytes_max {
            return Ok(());
        }
        Err(FolderError::TooLarge {
            path: path.to_owned(),
            bytes,
            bytes_max,
        })
    }

    /// An empty file to become `path`, locked so that nobody takes it for litter.
    fn temporary(&self, path: &Path) -> Result<NamedTempFile, FolderError> {
        let write_error = |source| FolderError::Write {
            path: path.to_owned(),
            source,
        };
        let _lock = Lock::take(&self.path)?;
        let mut builder = Builder::new();
        let made = builder.prefix(TEMPORARY_PREFIX).tempfile_in(&self.path);
        let file = made.map_err(write_error)?;
        file.as_file().lock().map_err(write_error)?;
        Ok(file)
    }

    /// Evicts until `bytes` more under `path` are within the limits. The caller has the folder's lock.
    fn make_room(&self, path: &Path, bytes: u64) -> Result<(), FolderError> {
        let surveyed = survey(&self.path).map_err(|source| FolderError::Write {
            path: path.to_owned(),
            source,
        });
        let mut entries = surveyed?;
        entries.retain(|entry| entry.path != path);
        let leaving = victims(entries, bytes, self.limits).map_err(|held_bytes| {
            let path = path.to_owned();
            let bytes_max = self.limits.bytes_max;
            FolderError::Full {
                path,
                held_bytes,
                bytes_max,
            }
        })?;
        for path in leaving {
            tracing::debug!(path = %path.display(), "evicting a file for a newer one");
            fs::remove_file(&path).map_err(|source| FolderError::Remove { path, source })?;
        }
        Ok(())
    }

    /// Puts the names on the disk.
    fn sync(&self, path: &Path) -> Result<(), FolderError> {
        let synced = File::open(&self.path).and_then(|folder| folder.sync_all());
        synced.map_err(|source| FolderError::Write {
            path: path.to_owned(),
            source,
        })
    }
}

/// Whether this can be the name of a file in a folder.
pub(crate) fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(is_plain)
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata()
        .is_ok_and(|metadata| metadata.is_file())
}

/// Marks a use. A folder that is read-only, or another user's, forgets the order of uses and works otherwise.
fn touch(file: &File) {
    let _ = file.set_times(FileTimes::new().set_accessed(SystemTime::now()));
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
    )
}

//! The state folder: what a daemon, or the `tidegate` command, keeps from one start to the next.
//!
//! All of it makes the next start faster or safer: module files that were fetched (`modules/`), compiled
//! code (`code/`, under the device's `code.key`), the highest version of each module that proved itself.
//! Whoever can do without takes a warning for a folder that cannot be used, and not an error.
//!
//! Code that is read back from here is run. The folder is therefore used only where nobody but the owner
//! of this process can write, and what is made is made for the owner alone.

use std::ffi::OsString;
use std::fs::{DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::geteuid;

/// Bytes that a state folder holds unless the configuration says otherwise: four of the largest modules,
/// or a hundred of the size that edge devices run.
pub const STATE_BYTES_DEFAULT: u64 = 4 << 30;

/// Least that a state folder is given: what a dozen small modules and their code take.
pub const STATE_BYTES_MIN: u64 = 64 << 20;

/// Most that a state folder is given.
pub const STATE_BYTES_MAX: u64 = 1 << 40;

/// Permissions of what is made: the owner's alone.
const FOLDER_MODE: u32 = 0o700;

/// Permission bits that let others write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Which folder keeps the state, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateConfig {
    /// The folder; none where neither the configuration nor the environment names one.
    pub folder: Option<PathBuf>,
    /// Most bytes of all that is kept.
    pub bytes_max: u64,
}

impl Default for StateConfig {
    /// The folder that the environment names: `$STATE_DIRECTORY`, as systemd sets it, else
    /// `$XDG_STATE_HOME/tidegate`, else `$HOME/.local/state/tidegate`.
    fn default() -> Self {
        Self {
            folder: from_environment(|name| std::env::var_os(name)),
            bytes_max: STATE_BYTES_DEFAULT,
        }
    }
}

/// Why a state folder is not used.
#[derive(Debug, thiserror::Error)]
pub enum OpenStateError {
    /// None is named.
    #[error("neither the configuration nor the environment names a state folder")]
    Unnamed,
    /// It is not there and cannot be made, or cannot be looked at.
    #[error("cannot make or read the folder {}", path.display())]
    Make {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is something else than a folder.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// Nothing can be written to it.
    #[error("the folder {} cannot be written", path.display())]
    Write {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else could put code there, which would then be run here.
    #[error(
        "others than the owner of this process can write to {}: it needs mode 0700 and that owner",
        .0.display()
    )]
    Shared(PathBuf),
}

/// A state folder that is there and that this process alone may write.
#[derive(Clone, Debug)]
pub struct StateFolder {
    path: PathBuf,
    bytes_max: u64,
}

impl StateConfig {
    /// Opens the folder, and makes it where it is missing.
    pub fn try_open(&self) -> Result<StateFolder, OpenStateError> {
        let path = self.folder.as_deref().ok_or(OpenStateError::Unnamed)?;
        StateFolder::open(path, self.bytes_max)
    }

    /// As [`StateConfig::try_open`], for whom a folder that cannot be used is worth a warning.
    #[must_use]
    pub fn open(&self) -> Option<StateFolder> {
        self.try_open()
            .inspect_err(|error| {
                let reason = crate::chain(error);
                tracing::warn!(reason, "the state folder cannot be used: nothing is kept");
            })
            .ok()
    }
}

impl StateFolder {
    /// Opens the folder at `path`, and makes it with mode 0700 where it is missing.
    pub fn open(path: &Path, bytes_max: u64) -> Result<Self, OpenStateError> {
        let failed = |source| OpenStateError::Make {
            path: path.to_owned(),
            source,
        };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(FOLDER_MODE);
        match builder.create(path) {
            // What is at `path` instead of a folder is told below.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(failed)?,
        }
        let metadata = path.metadata().map_err(failed)?;
        if !metadata.is_dir() {
            return Err(OpenStateError::NotAFolder(path.to_owned()));
        }
        if !is_private(&metadata) {
            return Err(OpenStateError::Shared(path.to_owned()));
        }
        access(path, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
            OpenStateError::Write {
                path: path.to_owned(),
                source: error.into(),
            }
        })?;
        Ok(Self {
            path: path.to_owned(),
            bytes_max,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of module files by digest.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.path.join("modules")
    }

    /// Most bytes of module files: three quarters of the whole.
    #[must_use]
    pub fn modules_bytes_max(&self) -> u64 {
        self.bytes_max - self.code_bytes_max()
    }

    /// Most bytes of compiled code: a quarter of the whole. A module's code is smaller than its weights.
    #[must_use]
    pub fn code_bytes_max(&self) -> u64 {
        self.bytes_max / 4
    }
}

/// Whether the owner of this process owns it too, and nobody else can write to it.
fn is_private(metadata: &Metadata) -> bool {
    metadata.uid() == geteuid().as_raw() && metadata.mode() & WRITABLE_BY_OTHERS == 0
}

/// The folder that the environment names. Relative paths are ignored, as the XDG specification asks.
fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name: &str| {
        let path = PathBuf::from(variable(name)?);
        path.is_absolute().then_some(path)
    };
    // systemd lists several folders with a colon between them; the first is the service's own.
    let from_systemd = || {
        let listed = variable("STATE_DIRECTORY")?;
        let first = std::env::split_paths(&listed).next()?;
        first.is_absolute().then_some(first)
    };
    from_systemd()
        .or_else(|| Some(folder("XDG_STATE_HOME")?.join("tidegate")))
        .or_else(|| Some(folder("HOME")?.join(".local/state/tidegate")))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn the_environment_names_the_folder() {
        let check = |variables: &[(&str, &str)], expected: Option<&str>| {
            let found = from_environment(|wanted| {
                let found = variables.iter().find(|(name, _)| *name == wanted);
                found.map(|(_, value)| OsString::from(value))
            });
            assert_eq!(found.as_deref(), expected.map(Path::new), "{variables:?}");
        };
        let home = ("HOME", "/home/a");
        check(&[], None);
        check(&[home], Some("/home/a/.local/state/tidegate"));
        check(&[home, ("XDG_STATE_HOME", "/x")], Some("/x/tidegate"));
        check(
            &[home, ("XDG_STATE_HOME", "x")],
            Some("/home/a/.local/state/tidegate"),
        );
        check(
            &[("XDG_STATE_HOME", "/x"), ("STATE_DIRECTORY", "/var/lib/t")],
            Some("/var/lib/t"),
        );
        check(
            &[("STATE_DIRECTORY", "/var/lib/t:/var/lib/u")],
            Some("/var/lib/t"),
        );
        check(
            &[home, ("STATE_DIRECTORY", "")],
            Some("/home/a/.local/state/tidegate"),
        );
    }

    #[test]
    fn a_missing_folder_is_made_for_its_owner_alone() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("a/b");
        let folder = StateFolder::open(&path, 100).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        assert_eq!(folder.path(), path);
        assert_eq!(folder.modules(), path.join("modules"));
        assert_eq!(
            (folder.modules_bytes_max(), folder.code_bytes_max()),
            (75, 25)
        );
        assert!(StateFolder::open(&path, 100).is_ok());
    }

    #[test]
    fn a_folder_that_others_can_write_is_not_used() {
        let outer = tempfile::tempdir().unwrap();
        for mode in [0o770, 0o702, 0o777, 0o1777] {
            fs::set_permissions(outer.path(), Permissions::from_mode(mode)).unwrap();
            let error = StateFolder::open(outer.path(), 100).unwrap_err();
            assert!(
                matches!(error, OpenStateError::Shared(_)),
                "{mode:o}: {error}"
            );
        }
        fs::set_permissions(outer.path(), Permissions::from_mode(0o750)).unwrap();
        assert!(StateFolder::open(outer.path(), 100).is_ok());
    }

    #[test]
    fn what_is_no_folder_costs_a_warning_only() {
        let outer = tempfile::tempdir().unwrap();
        let file = outer.path().join("file");
        fs::write(&file, "").unwrap();
        let dangling = outer.path().join("dangling");
        symlink("/nonexistent/state", &dangling).unwrap();
        for path in [
            file.clone(),
            file.join("below"),
            dangling,
            "/proc/state".into(),
        ] {
            assert!(StateFolder::open(&path, 100).is_err(), "{path:?}");
            let config = StateConfig {
                folder: Some(path),
                bytes_max: 100,
            };
            assert!(config.open().is_none());
        }
        let none = StateConfig {
            folder: None,
            bytes_max: 100,
        };
        assert!(none.open().is_none());
    }
}

//! What took seconds to make is kept from one start to the next, and trusted only if it is ours.
//!
//! Compiled code is run as it is read: whoever can change an entry would run code outside of the sandbox.
//! So every entry carries a tag under a key that was made on this device and never leaves it, and its
//! name is part of what the tag covers: an entry that was cut, changed, made elsewhere, or put under
//! another's name is removed and made anew. Nothing here is ever taken from the network, and nothing
//! that goes wrong here fails more than the keeping.
//!
//! Verdicts on graphs lie beside the code and are authenticated in the same way.

mod code;
mod device_key;
mod sealed;

use std::error::Error;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use ring::hmac;
use tidegate_store::{Folder, FolderError};

pub(crate) use self::code::{CodeTooLarge, Compiled, EngineId, code_of};
pub(crate) use self::sealed::Authentic;
use crate::config::CacheConfig;
use crate::module::sha256;

/// Why nothing is kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenCacheError {
    /// The folder of entries cannot be made.
    #[error("cannot make the folder {}", path.display())]
    Make {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder of entries cannot be used.
    #[error("cannot use the folder of compiled code")]
    Folder(#[from] FolderError),
    /// The key can be neither read nor made.
    #[error("cannot read or make the key {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Entries by name, each authenticated.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: Folder,
    key: hmac::Key,
}

/// What an entry holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Compiled code of a component.
    Code,
    /// Compiled code of a core module.
    CoreCode,
    /// What preparing a graph took in a child process.
    Verdict,
}

/// Under what an entry is kept: its kind, and everything that it depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryName(String);

impl EntryName {
    /// The name of an entry that depends on `parts`. Parts of any length never run together.
    pub(crate) fn new(kind: Kind, parts: &[&[u8]]) -> Self {
        let prefix = match kind {
            Kind::Code => "code",
            Kind::CoreCode => "core",
            Kind::Verdict => "graph",
        };
        let mut all = Vec::new();
        for part in parts {
            all.extend_from_slice(&(part.len() as u64).to_le_bytes());
            all.extend_from_slice(part);
        }
        let digest = sha256(&all).to_string();
        let (_, digits) = digest.split_once(':').unwrap_or(("", &digest));
        Self(format!("{prefix}-{digits}"))
    }

    fn as_str(&self) -> &str {
        &self.0
    }
}

impl Cache {
    /// Opens the entries in the state folder, and makes key and folder where they are missing.
    pub(crate) fn open(config: &CacheConfig) -> Result<Self, OpenCacheError> {
        let path = config.folder.join("code");
        match DirBuilder::new().mode(0o700).recursive(true).create(&path) {
            Ok(()) => {}
            Err(source) => return Err(OpenCacheError::Make { path, source }),
        }
        let folder = Folder::open(path, config.bytes_max)?;
        let path = config.folder.join("code.key");
        match device_key::load(&path) {
            Ok(key) => Ok(Self { folder, key }),
            Err(source) => Err(OpenCacheError::Key { path, source }),
        }
    }

    /// An entry as this device made it. One that cannot be read or is not authentic is removed.
    pub(crate) fn get(&self, name: &EntryName) -> Option<Authentic> {
        match self.folder.get(name.as_str()) {
            Ok(Some(file)) => {
                let authentic = sealed::open(&self.key, name.as_str(), file);
                if authentic.is_none() {
                    self.discard(name, "it is damaged, or was not made by this device");
                }
                authentic
            }
            Ok(None) => None,
            Err(error) => {
                self.discard(name, &chain(&error));
                None
            }
        }
    }

    /// Keeps an entry. What goes wrong is logged and costs only the next start's time.
    pub(crate) fn put(&self, name: &EntryName, payload: &[u8]) {
        let file = sealed::seal(&self.key, name.as_str(), payload);
        if let Err(error) = self.folder.put(name.as_str(), &file) {
            let reason = chain(&error);
            tracing::warn!(
                entry = name.as_str(),
                reason,
                "cannot keep an entry of the cache"
            );
        }
    }

    /// Removes an entry that cannot be used.
    pub(crate) fn discard(&self, name: &EntryName, reason: &str) {
        tracing::warn!(
            entry = name.as_str(),
            reason,
            "removing an entry of the cache"
        );
        if let Err(error) = self.folder.remove(name.as_str()) {
            let reason = chain(&error);
            tracing::warn!(
                entry = name.as_str(),
                reason,
                "cannot remove an entry of the cache"
            );
        }
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    std::iter::successors(Some(error), |error| (**error).source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

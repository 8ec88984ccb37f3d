//! The module store: module files by digest, so that what was fetched once runs without a network.
//!
//! ```text
//! modules/sha256/HEX      whole module files
//! modules/partial/HEX     downloads under way, resumed after a cut or a restart
//! modules/manifests/HEX   OCI manifests, which lead from the digest that a reference pins to a module's
//! modules/tags/HEX        which manifest a tag named last, by the digest of the reference's text
//! ```
//!
//! Disks and other programs damage files, so nothing is believed: a module or manifest is hashed whenever it
//! is read, and removed when it is not what its name says. What a tag named last is advice for the time
//! without a network: it says which of the verified modules to run.

mod partial;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use tidegate_inference::Digest;
use tidegate_store::{Folder, FolderError, Held, Limits};

pub(crate) use self::partial::{Partial, PartialError};

/// Most bytes of a module file, as much as a runtime reads.
pub const MODULE_BYTES_MAX: u64 = 1 << 30;

/// Room for manifests: some thousands of the usual 1 KiB, and at least one of the largest.
const MANIFESTS: Limits = Limits {
    bytes_max: 16 << 20,
    files_max: 4096,
};

/// Room for what tags named last.
const TAGS: Limits = Limits {
    bytes_max: 1 << 20,
    files_max: 4096,
};

/// Module files by digest, in a folder that several processes may share.
#[derive(Debug, Clone)]
pub struct ModuleStore {
    modules: Folder,
    manifests: Folder,
    tags: Folder,
    partial: PathBuf,
}

/// A module from the store. While it lives no process evicts its file.
#[derive(Debug, Clone)]
pub struct KeptModule {
    digest: Digest,
    bytes: Bytes,
    _held: Arc<Held>,
}

impl KeptModule {
    /// The digest of the bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The file, verified against the digest.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl ModuleStore {
    /// Opens the store in `folder` (the `modules` of a state folder) for modules of at most `bytes_max` bytes
    /// together, and makes it where it is missing. Downloads that nobody resumed for a week are removed.
    pub fn open(folder: impl Into<PathBuf>, bytes_max: u64) -> Result<Self, FolderError> {
        let folder = folder.into();
        let partial = folder.join("partial");
        partial::make(&partial).map_err(|source| FolderError::Open {
            path: partial.clone(),
            source,
        })?;
        Ok(Self {
            modules: Folder::open(folder.join("sha256"), bytes_max)?,
            manifests: Folder::open_within(folder.join("manifests"), MANIFESTS)?,
            tags: Folder::open_within(folder.join("tags"), TAGS)?,
            partial,
        })
    }

    /// Most bytes of a module that can be kept.
    #[must_use]
    pub fn module_bytes_max(&self) -> u64 {
        self.modules.limits().bytes_max.min(MODULE_BYTES_MAX)
    }

    /// The module with this digest. `None` if it is not there, or was damaged and is now removed.
    ///
    /// Reads and hashes the whole file: some 3 ms a MiB on a slow device.
    pub fn get(&self, wanted: &Digest) -> Result<Option<KeptModule>, FolderError> {
        let name = hex(wanted);
        let Some(held) = self.modules.hold(&name)? else {
            return Ok(None);
        };
        // A file that cannot be read to its end, or is too large to be, is as damaged as one that differs.
        if let Ok(Some(bytes)) = self.modules.get(&name)
            && sha256(&bytes) == *wanted
        {
            return Ok(Some(KeptModule {
                digest: *wanted,
                bytes: bytes.into(),
                _held: Arc::new(held),
            }));
        }
        tracing::warn!(digest = %wanted, "a module in the store is damaged; it is removed");
        self.modules.remove(&name)?;
        Ok(None)
    }

    /// Whether a module of this digest is there. It may yet turn out to be damaged.
    pub fn contains(&self, digest: &Digest) -> Result<bool, FolderError> {
        self.modules.contains(&hex(digest))
    }

    /// The size of the module with this digest, if it is there.
    pub(crate) fn module_bytes(&self, digest: &Digest) -> Result<Option<u64>, FolderError> {
        let metadata = std::fs::metadata(self.modules.path(&hex(digest))?);
        Ok(metadata.ok().map(|metadata| metadata.len()))
    }

    /// How many bytes of a download under way have arrived.
    pub(crate) fn partial_bytes(&self, digest: &Digest) -> u64 {
        let metadata = std::fs::metadata(self.partial.join(hex(digest)));
        metadata.map_or(0, |metadata| metadata.len())
    }

    /// Keeps a module. Gives its digest.
    pub fn put(&self, module: &[u8]) -> Result<Digest, FolderError> {
        let digest = sha256(module);
        self.modules.put(&hex(&digest), module)?;
        Ok(digest)
    }

    /// Takes a module away. Who has it keeps its bytes.
    pub fn remove(&self, digest: &Digest) -> Result<bool, FolderError> {
        self.modules.remove(&hex(digest))
    }

    /// The download of a module, as far as it has come, for this process alone.
    pub(crate) fn partial(&self, digest: &Digest) -> Result<Partial, PartialError> {
        Partial::open(self.partial.join(hex(digest)))
    }

    /// Keeps a whole download under the digest of its bytes, which the caller has verified.
    pub(crate) fn adopt(&self, digest: &Digest, partial: Partial) -> Result<(), FolderError> {
        self.modules.adopt(&hex(digest), partial.path())
    }

    /// The manifest with this digest.
    pub(crate) fn manifest(&self, wanted: &Digest) -> Result<Option<Bytes>, FolderError> {
        let name = hex(wanted);
        match self.manifests.get(&name)? {
            Some(bytes) if sha256(&bytes) == *wanted => Ok(Some(bytes.into())),
            Some(_) => self.manifests.remove(&name).map(|_| None),
            None => Ok(None),
        }
    }

    /// Keeps a manifest. Gives its digest.
    pub(crate) fn put_manifest(&self, manifest: &[u8]) -> Result<Digest, FolderError> {
        let digest = sha256(manifest);
        if self.manifest(&digest)?.is_none() {
            self.manifests.put(&hex(&digest), manifest)?;
        }
        Ok(digest)
    }

    /// The digest of the manifest that `reference` named last.
    pub(crate) fn tagged(&self, reference: &str) -> Result<Option<Digest>, FolderError> {
        let name = hex(&sha256(reference.as_bytes()));
        let bytes = self.tags.get(&name)?.unwrap_or_default();
        let digest = std::str::from_utf8(&bytes).ok();
        Ok(digest.and_then(|text| text.trim_end().parse().ok()))
    }

    /// Remembers the digest of the manifest that `reference` names now.
    pub(crate) fn tag(&self, reference: &str, manifest: &Digest) -> Result<(), FolderError> {
        if self.tagged(reference)?.as_ref() == Some(manifest) {
            return Ok(());
        }
        let name = hex(&sha256(reference.as_bytes()));
        self.tags.put(&name, format!("{manifest}\n").as_bytes())
    }
}

/// The SHA-256 of `bytes`.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    let digest = digest(&SHA256, bytes);
    let bytes = digest.as_ref().try_into();
    Digest(bytes.expect("a SHA-256 has 32 bytes"))
}

/// The digits of a digest, which are its file's name.
fn hex(digest: &Digest) -> String {
    digest.to_string().trim_start_matches("sha256:").to_owned()
}

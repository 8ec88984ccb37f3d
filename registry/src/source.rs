//! A module that is configured by reference, for whoever runs it for months.
//!
//! ```no_run
//! # async fn run(registries: tidegate_registry::Registries, store: tidegate_registry::ModuleStore)
//! # -> Result<(), Box<dyn std::error::Error>> {
//! use tidegate_registry::Source;
//!
//! let source = Source::new("oci://ghcr.io/me/face:1".parse()?, registries, store);
//! // At the start: the newest if the registry can be reached, else what was there last.
//! let version = match source.resolve().await {
//!     Err(error) if error.is_temporary() => source.last_resolved().await?.ok_or(error)?,
//!     other => other?,
//! };
//! let module = source.fetch(&version).await?;
//! // From time to time: another version than the one that runs?
//! let newest = source.resolve().await?;
//! # let _ = (module, newest);
//! # Ok(())
//! # }
//! ```

use crate::modules::{KeptModule, ModuleStore};
use crate::oci::{Reference, Registries, TransferError, Version, Watch};

/// Where new versions of one module come from.
#[derive(Debug, Clone)]
pub struct Source {
    reference: Reference,
    registries: Registries,
    store: ModuleStore,
}

impl Source {
    /// Whether a configured module is a reference rather than a path.
    #[must_use]
    pub fn is_reference(text: &str) -> bool {
        text.starts_with("oci://")
    }

    /// What a reference names. Asks nobody.
    #[must_use]
    pub fn new(reference: Reference, registries: Registries, store: ModuleStore) -> Self {
        Self {
            reference,
            registries,
            store,
        }
    }

    /// The reference.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Whether the version can never change, so that there is nothing to poll for.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.reference.pin().is_some()
    }

    /// The version that the reference names now.
    ///
    /// A tag costs one small request while it has not moved, and is an error when the registry is out of reach
    /// ([`TransferError::is_temporary`]). A pinned version that the store knows costs none.
    pub async fn resolve(&self) -> Result<Version, TransferError> {
        self.registries.resolve(&self.reference, &self.store).await
    }

    /// The version that the reference named last, without asking the registry. It survives restarts.
    pub async fn last_resolved(&self) -> Result<Option<Version>, TransferError> {
        self.registries
            .last_resolved(&self.reference, &self.store)
            .await
    }

    /// The module file of a version, verified against its digest. Asks the registry only if the store does not
    /// have it. Keep the result while the module runs: it keeps the file from eviction.
    ///
    /// The digest says that these are the bytes that the reference names, not that somebody trustworthy made
    /// them: verify the signature too.
    pub async fn fetch(&self, version: &Version) -> Result<KeptModule, TransferError> {
        let watch = Watch::nobody();
        self.registries
            .fetch(&self.reference, version, &self.store, &watch)
            .await
    }
}

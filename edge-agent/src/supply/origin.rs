//! Where one module comes from, and whether something new is there.

use std::path::PathBuf;
use std::{fmt, io};

use bytes::Bytes;
use tidegate_inference::Digest;
use tidegate_registry::{KeptModule, Source, TransferError, Version};

use super::file::WatchedFile;

/// A module of the configuration.
#[derive(Debug)]
pub(crate) struct Origin {
    /// As the configuration says it.
    text: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    File(WatchedFile),
    Registry {
        source: Box<Source>,
        /// The module that the reference named at the last look.
        seen: Option<Digest>,
    },
}

/// A version that is there, and was not at the last look.
#[derive(Debug)]
pub(crate) struct Offer {
    /// SHA-256 of the module file.
    pub(crate) digest: Digest,
    found: Found,
}

#[derive(Debug)]
enum Found {
    Here(Bytes),
    InRegistry(Version),
}

/// A module file, its digest verified.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) digest: Digest,
    pub(crate) file: Bytes,
    /// Keeps the file in the store.
    pub(crate) kept: Option<KeptModule>,
}

/// Why nothing can be seen there, or fetched from there.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// The file cannot be read, or is larger than a module may be.
    #[error("failed to read the file")]
    File(#[source] io::Error),
    /// The registry does not answer, or not with a module.
    #[error("failed to ask the registry")]
    Registry(#[source] TransferError),
}

impl Origin {
    pub(crate) fn file(path: PathBuf) -> Self {
        Self {
            text: path.display().to_string(),
            place: Place::File(WatchedFile::new(path)),
        }
    }

    /// `text` is what `source` was made of.
    pub(crate) fn registry(text: String, source: Source) -> Self {
        let (source, seen) = (Box::new(source), None);
        let place = Place::Registry { source, seen };
        Self { text, place }
    }

    /// Whether it names one version for ever.
    pub(crate) fn is_pinned(&self) -> bool {
        match &self.place {
            Place::File(_) => false,
            Place::Registry { source, .. } => source.is_pinned(),
        }
    }

    /// What is there, if it is something else than at the last look.
    pub(crate) async fn look(&mut self) -> Result<Option<Offer>, LookError> {
        match &mut self.place {
            Place::File(file) => {
                let found = file.look().await.map_err(LookError::File)?;
                Ok(found.map(|(digest, bytes)| Offer {
                    digest,
                    found: Found::Here(bytes),
                }))
            }
            Place::Registry { source, seen } => {
                let version = source.resolve().await.map_err(LookError::Registry)?;
                if seen.replace(version.module) == Some(version.module) {
                    return Ok(None);
                }
                Ok(Some(Offer {
                    digest: version.module,
                    found: Found::InRegistry(version),
                }))
            }
        }
    }

    /// The file of an offer. A tag that has moved since changes nothing: the offer is a digest.
    pub(crate) async fn take(&self, offer: Offer) -> Result<Fetched, LookError> {
        let Offer { digest, found } = offer;
        match (found, &self.place) {
            (Found::Here(file), _) => Ok(Fetched {
                digest,
                file,
                kept: None,
            }),
            (Found::InRegistry(version), Place::Registry { source, .. }) => {
                let kept = source.fetch(&version).await.map_err(LookError::Registry)?;
                Ok(kept.into())
            }
            (Found::InRegistry(_), Place::File(_)) => {
                unreachable!("an offer is taken where it was made")
            }
        }
    }

    /// What a reference named last, as far as the store knows.
    pub(crate) async fn last(&self) -> Option<Offer> {
        let Place::Registry { source, .. } = &self.place else {
            return None;
        };
        let version = source.last_resolved().await.ok().flatten()?;
        Some(Offer {
            digest: version.module,
            found: Found::InRegistry(version),
        })
    }

    /// Lets the next look give what is there, whether it has changed or not.
    pub(crate) fn forget(&mut self) {
        match &mut self.place {
            Place::File(file) => file.forget(),
            Place::Registry { seen, .. } => *seen = None,
        }
    }
}

impl From<KeptModule> for Fetched {
    fn from(kept: KeptModule) -> Self {
        Self {
            digest: kept.digest(),
            file: kept.bytes().clone(),
            kept: Some(kept),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

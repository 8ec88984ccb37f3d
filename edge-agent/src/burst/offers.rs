//! The versions that this agent serves, as one link offers them to its relay.

use std::sync::Arc;

use bytes::Bytes;
use tidegate_control::ModelIndex;
use tidegate_inference::Digest;
use tidegate_wire::{ControlMessage, ModuleOffer};

use super::BurstStartError;
use crate::models::Served;

/// What the hello of a link lists.
#[derive(Debug)]
pub(super) struct Offers {
    /// The encoded hello.
    pub(super) hello: Bytes,
    served: Vec<Arc<Served>>,
}

impl Offers {
    /// `name` is what this agent calls itself.
    pub(super) fn new(name: String, served: Vec<Arc<Served>>) -> Result<Self, BurstStartError> {
        let offers = served.iter().map(|served| ModuleOffer {
            name: served.metadata().name.clone(),
            digest: served.digest(),
            len: u64::try_from(served.model.file().len()).expect("usize is at most 64 bits"),
        });
        let hello = ControlMessage::Hello {
            name,
            modules: offers.collect(),
        };
        let hello = hello.encode().map_err(|source| BurstStartError::Hello {
            modules: served.len(),
            source,
        })?;
        Ok(Self { hello, served })
    }

    /// Whether both list the same modules.
    pub(super) fn are_those_of(&self, other: &Self) -> bool {
        self.hello == other.hello
    }

    /// How many modules are offered.
    pub(super) fn len(&self) -> usize {
        self.served.len()
    }

    /// The offered version of a model.
    pub(super) fn version_of(&self, model: ModelIndex) -> Option<Arc<Served>> {
        let found = self.served.iter().find(|served| served.index == model);
        found.cloned()
    }

    /// The offered module of this digest.
    pub(super) fn module(&self, digest: Digest) -> Option<&Arc<Served>> {
        self.served.iter().find(|served| served.digest() == digest)
    }
}

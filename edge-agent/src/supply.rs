//! Brings modules to the models that are served, and new versions after them.
//!
//! Each module of the configuration has a task that looks at where it comes from every
//! [`Supply::poll`]. What is new there is prepared beside the requests ([`workshop`]) and handed to the
//! rollout of its model. What cannot be used is said once and left alone until something else is there;
//! the version that serves goes on serving. Nothing here ends the agent.
//!
//! Module files are there when the agent starts, or it does not start. A module of a registry is taken
//! from the store in the version that proved itself last, so that an agent starts in a valley without a
//! network; where there is none, the agent serves the others, is not ready, and goes on trying.

mod file;
mod memory;
mod origin;
mod workshop;

use std::sync::Arc;
use std::time::Duration;

use tidegate_control::ModelIndex;
use tidegate_control::rollout::BeginError;
use tidegate_inference::Digest;
use tokio::time::sleep;

pub(crate) use self::memory::{Memory, RememberError, Remembered};
pub use self::origin::LookError;
pub(crate) use self::origin::{Fetched, Offer, Origin};
pub use self::workshop::PrepareError;
pub(crate) use self::workshop::{Pace, Prepared, Workshop};
use crate::chance::uniform;
use crate::dispatch::Service;
use crate::models::{FollowError, NameTaken};

/// Wait after the first look that failed; it doubles up to [`Supply::poll`].
const WAIT_MIN: Duration = Duration::from_secs(1);

/// What the tasks share.
#[derive(Debug)]
pub(crate) struct Supply {
    pub(crate) service: Arc<Service>,
    pub(crate) workshop: Arc<Workshop>,
    /// From one look to the next, less up to a tenth, so that a fleet does not look in step.
    pub(crate) poll: Duration,
}

/// Why a version that is there does not begin.
#[derive(Debug, thiserror::Error)]
enum OfferError {
    #[error("failed to fetch the module")]
    Fetch(#[source] LookError),
    #[error("the module cannot be used")]
    Prepare(#[source] PrepareError),
    #[error("the module cannot follow the version that is served")]
    Follow(#[source] FollowError),
    #[error("the module cannot be served")]
    Name(#[source] NameTaken),
}

/// What became of a version that is there.
enum Offered {
    /// It serves, alone or as a canary; or it did and was rolled back.
    Settled,
    /// Another one is on its way in: it has to wait.
    Later,
}

/// Follows one module until it is dropped, or has what can never change.
pub(crate) async fn follow(supply: Arc<Supply>, index: ModelIndex, mut origin: Origin) {
    let mut failures = 0_u32;
    if supply.is_empty(index) {
        supply.recall(index, &origin).await;
        if supply.is_empty(index) {
            supply.look(index, &mut origin, &mut failures).await;
        }
    }
    while !origin.is_pinned() || supply.is_empty(index) {
        sleep(wait(supply.poll, failures, uniform())).await;
        supply.look(index, &mut origin, &mut failures).await;
    }
}

impl Supply {
    fn is_empty(&self, index: ModelIndex) -> bool {
        self.service.models.live(index).is_empty()
    }

    /// Takes the version that proved itself last from the store.
    async fn recall(&self, index: ModelIndex, origin: &Origin) {
        let remembered = self.service.memory.of(&origin.to_string());
        let Some(good) = remembered.good else { return };
        let Some(fetched) = from_store(&self.service.memory, good).await else {
            tracing::warn!(module = %origin, digest = %good, "the store has lost a module");
            return;
        };
        if let Err(error) = self.begin(index, fetched).await {
            let error: &dyn std::error::Error = &error;
            tracing::error!(module = %origin, error, "the version that served last cannot serve now");
        }
    }

    /// Looks once, and brings in what is new.
    async fn look(&self, index: ModelIndex, origin: &mut Origin, failures: &mut u32) {
        let offer = match origin.look().await {
            Ok(offer) => {
                if *failures > 0 {
                    tracing::info!(module = %origin, "a module can be looked at again");
                }
                *failures = 0;
                self.service.metrics.polled(&origin.to_string());
                offer
            }
            Err(error) => {
                say_failed(origin, &error, *failures);
                *failures = failures.saturating_add(1);
                // What the registry said last is better than nothing.
                match self.is_empty(index) && *failures == 1 {
                    true => origin.last().await,
                    false => None,
                }
            }
        };
        let Some(offer) = offer else { return };
        match self.offer(index, origin, offer).await {
            Ok(Offered::Settled) => {}
            Ok(Offered::Later) => origin.forget(),
            Err(OfferError::Fetch(error)) => {
                *failures = failures.saturating_add(1);
                origin.forget();
                let error: &dyn std::error::Error = &error;
                tracing::warn!(module = %origin, error, "failed to fetch a version, will go on trying");
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                self.service
                    .metrics
                    .rollout_ended(&origin.to_string(), "refused");
                match self.is_empty(index) {
                    true => {
                        tracing::error!(module = %origin, error, "refused a module, it is not served")
                    }
                    false => tracing::error!(
                        module = %origin,
                        error,
                        "refused a new version, the old one goes on serving"
                    ),
                }
            }
        }
    }

    /// Fetches a version and brings it in, unless it is known.
    async fn offer(
        &self,
        index: ModelIndex,
        origin: &Origin,
        offer: Offer,
    ) -> Result<Offered, OfferError> {
        let digest = offer.digest;
        match self.service.models.may_follow(index, digest) {
            Ok(()) => {}
            Err(BeginError::Current) => return Ok(Offered::Settled),
            Err(BeginError::RolledBack) => {
                tracing::info!(module = %origin, %digest, "left alone what was rolled back before");
                return Ok(Offered::Settled);
            }
            Err(BeginError::Busy) => return Ok(Offered::Later),
        }
        tracing::info!(module = %origin, %digest, "preparing a new version");
        let fetched = origin.take(offer).await.map_err(OfferError::Fetch)?;
        self.begin(index, fetched).await
    }

    /// Prepares a version, and seats it or begins its canary.
    async fn begin(&self, index: ModelIndex, fetched: Fetched) -> Result<Offered, OfferError> {
        let pace = match self.is_empty(index) {
            true => Pace::Awaited,
            false => Pace::Beside,
        };
        let prepared = self.workshop.prepare(fetched, pace).await;
        let prepared = prepared.map_err(OfferError::Prepare)?;
        let models = &self.service.models;
        let model = Arc::clone(&prepared.model);
        let (name, version) = (&model.manifest().name, &model.manifest().version);
        let digest = model.digest();
        if self.is_empty(index) {
            let refused = self
                .service
                .memory
                .of(&self.service.sources[index.0])
                .refused;
            let installed = models.install(index, prepared, refused);
            installed.map_err(OfferError::Name)?;
            tracing::info!(model = name, version, %digest, "model loaded");
            self.service.proved(index).await;
            self.service.offer_to_relays();
        } else {
            match models.follow(index, prepared) {
                Ok(()) => {}
                Err(FollowError::Begin(BeginError::Busy)) => return Ok(Offered::Later),
                Err(error) => return Err(OfferError::Follow(error)),
            }
            tracing::info!(model = name, version, %digest, "a canary begins");
        }
        self.service.show_versions(index);
        Ok(Offered::Settled)
    }
}

/// A module that proved itself before, if the store still has it.
pub(crate) async fn from_store(memory: &Arc<Memory>, digest: Digest) -> Option<Fetched> {
    let memory = Arc::clone(memory);
    let getting = tokio::task::spawn_blocking(move || memory.module(digest));
    let kept = getting.await.expect("reading the store does not panic");
    kept.map(Fetched::from)
}

/// A lasting failure is said once. A registry may come back by itself; a file that cannot be read is for a
/// person.
fn say_failed(origin: &Origin, error: &LookError, failures: u32) {
    let is_file = matches!(error, LookError::File(_));
    let error: &dyn std::error::Error = error;
    match (failures, is_file) {
        (0, true) => {
            tracing::error!(module = %origin, error, "failed to look at a module, will go on trying");
        }
        (0, false) => {
            tracing::warn!(module = %origin, error, "failed to look at a module, will go on trying");
        }
        (_, _) => {
            tracing::debug!(module = %origin, error, failures, "failed to look at a module again");
        }
    }
}

/// How long to wait before the next look, after `failures` that failed; `chance` is uniform in [0, 1).
fn wait(poll: Duration, failures: u32, chance: f64) -> Duration {
    let pause = match failures {
        0 => poll,
        _ => WAIT_MIN
            .saturating_mul(1 << (failures - 1).min(16))
            .min(poll),
    };
    pause.mul_f64(1.0 - 0.1 * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_spread_and_come_soon_after_a_failure() {
        let s = |poll, failures, chance| {
            wait(Duration::from_secs(poll), failures, chance).as_secs_f64()
        };
        assert_eq!([s(60, 0, 0.0), s(60, 0, 1.0)], [60.0, 54.0]);
        assert_eq!(
            [s(60, 1, 0.0), s(60, 3, 0.0), s(60, 9, 0.0)],
            [1.0, 4.0, 60.0]
        );
        assert_eq!([s(1, 1, 0.0), s(1, u32::MAX, 0.0)], [1.0, 1.0]);
    }
}

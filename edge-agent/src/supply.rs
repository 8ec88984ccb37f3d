//! Brings new versions of modules to the models that are served: look, read, prepare, begin.
//!
//! Each module of the configuration has a task that looks at where it comes from every
//! [`Supply::poll`]. What is new there is prepared beside the requests ([`workshop`]) and handed to the
//! rollout of its model. What cannot be used is said once and left alone until something else is there; the
//! version that serves goes on serving. Nothing here ends the agent.

mod file;
mod workshop;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidegate_control::ModelIndex;
use tidegate_control::rollout::BeginError;
use tidegate_inference::Digest;
use tokio::time::sleep;

pub(crate) use self::file::WatchedFile;
pub use self::workshop::PrepareError;
pub(crate) use self::workshop::Workshop;
use crate::chance::uniform;
use crate::dispatch::Service;
use crate::models::FollowError;

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

/// Why a new version does not begin.
#[derive(Debug, thiserror::Error)]
enum OfferError {
    #[error("the module cannot be used")]
    Prepare(#[source] PrepareError),
    #[error("the module cannot follow the version that is served")]
    Follow(#[source] FollowError),
}

/// What became of a version that is there.
enum Offered {
    /// Its canary has begun.
    Begun,
    /// It serves already, or was rolled back.
    Known,
    /// Another one is on its way in: it has to wait.
    Later,
}

/// Follows one module until it is dropped.
pub(crate) async fn follow(supply: Arc<Supply>, index: ModelIndex, mut file: WatchedFile) {
    let name = file.path().display().to_string();
    let mut failures = 0_u32;
    loop {
        sleep(wait(supply.poll, failures, uniform())).await;
        let look = file.look().await;
        let bytes = match look {
            Ok(bytes) => {
                if failures > 0 {
                    tracing::info!(module = name, failures, "a module can be looked at again");
                }
                failures = 0;
                supply.service.metrics.polled(&name);
                bytes
            }
            Err(error) => {
                match failures {
                    0 => tracing::warn!(module = name, %error, "failed to look at a module"),
                    _ => tracing::debug!(module = name, %error, "failed to look at a module again"),
                }
                failures = failures.saturating_add(1);
                continue;
            }
        };
        let Some(bytes) = bytes else { continue };
        match offer(&supply, index, bytes).await {
            Ok(Offered::Begun | Offered::Known) => {}
            Ok(Offered::Later) => file.forget(),
            Err(error) => {
                supply.service.metrics.rollout_ended(&name, "refused");
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    module = name,
                    error,
                    "refused a new version, the old one goes on serving"
                );
            }
        }
    }
}

/// Prepares a version that is there and begins its canary, unless it is known.
async fn offer(supply: &Supply, index: ModelIndex, file: Bytes) -> Result<Offered, OfferError> {
    let models = &supply.service.models;
    let (digest, file) = digest_of(file).await;
    match models.may_follow(index, digest) {
        Ok(()) => {}
        Err(BeginError::Current) => return Ok(Offered::Known),
        Err(BeginError::RolledBack) => {
            tracing::info!(%digest, "a version that was rolled back is still there, leaving it alone");
            return Ok(Offered::Known);
        }
        Err(BeginError::Busy) => return Ok(Offered::Later),
    }
    tracing::info!(%digest, len = file.len(), "preparing a new version");
    let model = supply.workshop.prepare(file).await;
    let model = model.map_err(OfferError::Prepare)?;
    match models.follow(index, Arc::clone(&model)) {
        Ok(()) => {}
        Err(FollowError::Begin(BeginError::Busy)) => return Ok(Offered::Later),
        Err(error) => return Err(OfferError::Follow(error)),
    }
    let (name, version) = (&model.manifest().name, &model.manifest().version);
    tracing::info!(model = name, version, %digest, "a canary begins");
    supply.service.show_versions(index);
    Ok(Offered::Begun)
}

async fn digest_of(file: Bytes) -> (Digest, Bytes) {
    let hashing = tokio::task::spawn_blocking(move || {
        let digest = tidegate_runtime::module::sha256(&file);
        (digest, file)
    });
    hashing.await.expect("hashing does not panic")
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

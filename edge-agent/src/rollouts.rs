//! What the turns of rollouts ask for beside the switch itself.
//!
//! They are said, shown, and offered to relays.

use std::sync::Arc;
use std::time::Duration;

use tidegate_control::ModelIndex;
use tidegate_control::rollout::{Figures, Turn};
use tidegate_inference::ModelMetadata;
use tidegate_registry::Source;
use tokio::time::{MissedTickBehavior, interval};

use crate::dispatch::Service;
use crate::models::Turned;
use crate::supply::{Memory, RememberError};

/// How often turns are looked for. The requests follow a switch at once; relays hear of it so late.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Runs until it is dropped.
pub(crate) async fn run(service: Arc<Service>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        for turned in service.models.tick() {
            // First, so that a turn that is shown outlives the process.
            service.learn(&turned).await;
            conclude(&service, &turned);
        }
    }
}

/// An event at a level, with its own fields and the figures that it rests on.
macro_rules! compared {
    ($level:ident, $figures:expr, { $($fields:tt)* }, $message:literal) => {{
        let Figures { new, old, evidence } = $figures;
        tracing::$level!(
            runs = new.runs,
            failed = new.failed,
            slow = new.slow,
            old_runs = old.runs,
            old_failed = old.failed,
            old_slow = old.slow,
            evidence,
            $($fields)*,
            $message
        );
    }};
}

fn conclude(service: &Service, turned: &Turned) {
    let index = turned.model;
    let module = &service.sources[index.0];
    let metadata = turned.current.metadata();
    let (model, version) = (&metadata.name, &metadata.version);
    match turned.turn {
        Turn::Promoted { new, figures } => {
            compared!(
                info,
                figures,
                { model, version, digest = %new },
                "a new version is promoted, and watched"
            );
            service.metrics.rollout_ended(module, "promoted");
            service.offer_to_relays();
        }
        Turn::RolledBack {
            new,
            cause,
            figures,
        } => {
            let went = turned.left.as_ref();
            let went = went.map(|went| went.metadata().version.as_str());
            compared!(
                error,
                figures,
                { model, version = went, digest = %new, cause = cause.name(), back_to = version },
                "a new version is rolled back"
            );
            service.metrics.rollout_ended(module, "rolled-back");
            service.offer_to_relays();
        }
        Turn::Settled { old } => {
            tracing::info!(model, version, %old, "a new version has settled, the old one is gone");
            service.metrics.rollout_ended(module, "settled");
        }
    }
    service.show_versions(index);
}

impl Service {
    /// Remembers what a turn proved.
    async fn learn(self: &Arc<Self>, turned: &Turned) {
        match turned.turn {
            // It may still go back, and the agent then has to start from the old one.
            Turn::Promoted { .. } => {}
            Turn::Settled { .. } => self.proved(turned.model).await,
            Turn::RolledBack { .. } => {
                let source = self.sources[turned.model.0].clone();
                let refused = self.models.refused(turned.model);
                remember(self, move |memory| memory.refused(&source, refused)).await;
            }
        }
    }

    /// Remembers what a seat serves as proved.
    pub(crate) async fn proved(self: &Arc<Self>, index: ModelIndex) {
        let Some(current) = self.models.live(index).into_iter().next() else {
            return;
        };
        let source = self.sources[index.0].clone();
        remember(self, move |memory| {
            let served = &current.served;
            let ModelMetadata { name, version, .. } = served.metadata();
            let is_file = !Source::is_reference(&source);
            let copy = is_file.then(|| &served.model.file()[..]);
            memory.proved(&source, served.digest(), (name, version), copy)
        })
        .await;
    }

    /// Offers relays the versions that are current.
    pub(crate) fn offer_to_relays(&self) {
        if let Some(burst) = &self.burst
            && let Err(error) = burst.offer(self.models.current())
        {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "failed to offer a new version to relays");
        }
    }

    /// Shows which versions of a model are live.
    pub(crate) fn show_versions(&self, index: ModelIndex) {
        self.metrics.versions(&self.models.live(index));
    }
}

async fn remember(
    service: &Service,
    what: impl FnOnce(&Memory) -> Result<(), RememberError> + Send + 'static,
) {
    let memory = Arc::clone(&service.memory);
    let writing = tokio::task::spawn_blocking(move || what(&memory));
    if let Err(error) = writing.await.expect("writing does not panic") {
        let error: &dyn std::error::Error = &error;
        tracing::error!(
            error,
            "what was learnt of a version will be forgotten at the next start"
        );
    }
}

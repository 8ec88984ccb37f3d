//! Runs a job on this device, in the version that a rollout picks for it.

use std::sync::Arc;

use tidegate_control::Outcome;
use tidegate_inference::{FailureKind, Placement, Reason, Reply, Timings, select_outputs};
use tidegate_runtime::Completed;

use super::placement::{Failed, Unfinished};
use super::{Job, Service};
use crate::models::{Pin, Served, Trial};

impl Service {
    pub(super) async fn run_here(
        &self,
        run: Unfinished<'_>,
        job: &Job,
        reason: Reason,
    ) -> Result<Reply, Failed> {
        let (served, done) = self.run_version(job).await?;
        self.waited(done.queue);
        run.finish(&Outcome::Local {
            model: served.index,
            queue: done.queue,
            service: done.service,
            cpu: done.cpu,
        });
        Ok(Reply {
            version: served.metadata().version.clone(),
            outputs: select_outputs(done.outputs, &job.outputs),
            placement: Placement::Local,
            reason,
            timings: Timings {
                queue: done.queue,
                infer: done.service,
            },
        })
    }

    /// Runs `job` in the version that a rollout picks for it, and in the version before that where the
    /// new one gives no answer: callers do not pay for a rollout. The version before also tells whose
    /// fault a refusal was, which it shares if the request is wrong.
    async fn run_version(&self, job: &Job) -> Result<(Arc<Served>, Completed), Failed> {
        let mut trial = Trial::begin(&self.models, &job.served, job.pin);
        let served = Arc::clone(trial.served());
        let failed = match self.run_slot(&served, job, Some(&mut trial)).await {
            Ok(done) => {
                trial.answered(done.service);
                return Ok((served, done));
            }
            Err(failed) => failed,
        };
        let before = || match job.pin {
            Pin::Any => self.models.before(&served),
            Pin::This => None,
        };
        match failed.failure.kind {
            FailureKind::Module | FailureKind::Internal => {
                trial.failed();
                match before() {
                    None => Err(failed),
                    Some(before) => {
                        let failure = &failed.failure;
                        tracing::debug!(%failure, "a new version failed, asking the old one");
                        let done = self.run_slot(&before, job, None).await?;
                        Ok((before, done))
                    }
                }
            }
            FailureKind::Invalid | FailureKind::TooLarge => {
                trial.forget();
                let Some(before) = before() else {
                    return Err(failed);
                };
                match self.run_slot(&before, job, None).await {
                    Ok(done) => {
                        trial.failed();
                        Ok((before, done))
                    }
                    Err(_) => Err(failed),
                }
            }
            // Dropping the trial counts a run that its deadline ended.
            FailureKind::DeadlineExceeded => Err(failed),
            FailureKind::NotFound
            | FailureKind::Overloaded
            | FailureKind::Unavailable
            | FailureKind::Cancelled => {
                trial.forget();
                Err(failed)
            }
        }
    }

    async fn run_slot(
        &self,
        served: &Served,
        job: &Job,
        trial: Option<&mut Trial<'_>>,
    ) -> Result<Completed, Failed> {
        let model = Arc::clone(&served.model);
        let inputs = job.inputs.clone();
        let running = self
            .slots
            .submit(model, inputs, job.priority, job.deadline)
            .map_err(Failed::from)?;
        if let Some(trial) = trial {
            trial.queued(running.clock());
        }
        running.await.map_err(|failure| {
            if failure.kind == FailureKind::Internal {
                tracing::error!(%failure, "a run failed by a fault of this device");
            }
            Failed {
                elsewhere: failure.is_worth_retrying(),
                failure,
            }
        })
    }
}

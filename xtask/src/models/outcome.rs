//! What came of one model: the steps that it passed, the one that it failed, and what was measured.

use std::time::Duration;

use anyhow::Result;

use super::journey::Step;
use super::source::Source;

/// What came of one model so far.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) model: String,
    pub(super) passed: Vec<Step>,
    pub(super) failure: Option<(Step, String)>,
    /// What the agent took to load it.
    pub(super) load: Option<Duration>,
    pub(super) speed: Option<Speed>,
    /// The largest relative difference of a float in any answer; unknown before, and without floats.
    pub(super) relative_max: Option<f64>,
}

/// How long a run of the model takes, requests and runs taking turns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Speed {
    /// `tidegate_infer_us` of the agent's answers.
    pub(super) agent_us_p50: f64,
    /// Of ONNX Runtime with one thread.
    pub(super) onnxruntime_us_p50: f64,
    /// Runs of each.
    pub(super) runs: u64,
}

impl Outcome {
    pub(super) fn new(source: &Source) -> Self {
        Self {
            model: source.name.clone(),
            passed: Vec::new(),
            failure: None,
            load: None,
            speed: None,
            relative_max: None,
        }
    }

    /// Notes how a step ended, and gives whether it was passed.
    pub(super) fn take(&mut self, step: Step, result: Result<()>) -> bool {
        match result {
            Ok(()) => self.passed.push(step),
            Err(error) => self.failure = Some((step, format!("{error:#}"))),
        }
        self.failure.is_none()
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.is_some()
    }

    pub(super) fn failed_at(&self, step: Step) -> bool {
        self.failure
            .as_ref()
            .is_some_and(|(failed, _)| *failed == step)
    }

    /// Whether no step is left for it.
    pub(super) fn has_ended(&self) -> bool {
        self.has_failed() || self.passed.last() == Step::ALL.last()
    }

    /// The steps passed, in words.
    pub(super) fn passed(&self) -> String {
        let names: Vec<_> = self.passed.iter().map(|step| step.name()).collect();
        names.join(", ")
    }

    /// The model's line, once it has ended.
    pub(super) fn line(&self) -> String {
        let Self { model, .. } = self;
        match &self.failure {
            Some((step, reason)) => format!("{model}: FAILED at {}: {reason}", step.name()),
            None => format!(
                "{model}: all {} steps, load {}, infer {} of {}, ratio {}",
                self.passed.len(),
                self.load_text(),
                self.speed_text(|speed| speed.agent_us_p50 / 1e3, " ms"),
                self.speed_text(|speed| speed.onnxruntime_us_p50 / 1e3, " ms"),
                self.speed_text(Speed::ratio, ""),
            ),
        }
    }

    fn steps(&self) -> String {
        let (passed, all) = (self.passed.len(), Step::ALL.len());
        match &self.failure {
            Some((step, _)) => format!("{passed}/{all}, fails: {}", step.name()),
            None => format!("{passed}/{all}"),
        }
    }

    fn load_text(&self) -> String {
        self.load.map_or_else(
            || "-".to_owned(),
            |load| format!("{:.0} ms", load.as_secs_f64() * 1e3),
        )
    }

    fn speed_text(&self, part: impl Fn(Speed) -> f64, unit: &str) -> String {
        self.speed.map_or_else(
            || "-".to_owned(),
            |speed| {
                let value = part(speed);
                let digits = match value {
                    ..1.0 => 3,
                    ..10.0 => 2,
                    _ => 1,
                };
                format!("{value:.digits$}{unit}")
            },
        )
    }

    /// The model's row of the table.
    pub(super) fn row(&self) -> [String; 7] {
        [
            self.model.clone(),
            self.steps(),
            self.relative_max
                .map_or_else(|| "-".to_owned(), |max| format!("{max:.1e}")),
            self.load_text(),
            self.speed_text(|speed| speed.agent_us_p50 / 1e3, " ms"),
            self.speed_text(|speed| speed.onnxruntime_us_p50 / 1e3, " ms"),
            self.speed_text(Speed::ratio, ""),
        ]
    }
}

impl Speed {
    pub(super) fn ratio(self) -> f64 {
        self.agent_us_p50 / self.onnxruntime_us_p50
    }
}

//! What came of all models: a table for people, a page of the documentation, JSON for machines.

use serde_json::{Value, json};

use super::outcome::{Outcome, Speed};

/// What came of all.
#[derive(Debug)]
pub(super) struct Report {
    /// Words for the build of the program.
    pub(super) build: String,
    pub(super) outcomes: Vec<Outcome>,
}

impl Report {
    /// Each model that failed, with the step.
    pub(super) fn failures(&self) -> Vec<String> {
        let failure = |outcome: &Outcome| {
            let (step, _) = outcome.failure.as_ref()?;
            Some(format!("{} at {}", outcome.model, step.name()))
        };
        self.outcomes.iter().filter_map(failure).collect()
    }

    /// In Markdown, aligned.
    pub(super) fn table(&self) -> String {
        let head = [
            "model",
            "steps passed",
            "max relative difference",
            "load",
            "agent p50",
            "ONNX Runtime p50",
            "ratio",
        ];
        let mut rows = vec![head.map(ToOwned::to_owned)];
        rows.extend(self.outcomes.iter().map(Outcome::row));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<_> = (0..head.len())
            .map(|column| width(column).unwrap_or(0))
            .collect();
        let line = |row: &[String; 7]| {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!(" {cell:<width$} |"));
            format!("|{}\n", cells.collect::<String>())
        };
        let rule: String = widths
            .iter()
            .map(|width| format!("{}|", "-".repeat(width + 2)))
            .collect();
        let mut text = format!(
            "Measured with {}.\n\n{}|{rule}\n",
            self.build,
            line(&rows[0])
        );
        text.extend(rows[1..].iter().map(line));
        text
    }

    /// The table as a page of the documentation.
    pub(super) fn page(&self) -> String {
        let mut text = format!(
            "# Real models\n\n\
             Written by `cargo xtask models --data DIR --release --table docs/models.md`. Each model is packed with \
             its samples, signed, published to a registry, pulled by digest, verified, checked, loaded by an agent that trusts the \
             author's key alone, asked over the Open Inference Protocol with binary tensors, and compared with what ONNX Runtime \
             gave: integers and texts the same, floats within 0.001 of the reference or 0.0001, as `tidegate check` measures.\n\n\
             Load is the time from the model before it in the agent's start, with an empty state folder. p50 of the agent is of \
             `tidegate_infer_us`; ONNX Runtime runs with one thread, in turns with the requests.\n\n{}",
            self.table()
        );
        for outcome in &self.outcomes {
            if outcome.has_failed() {
                text.push_str(&format!("\n- {}\n", outcome.line()));
            }
        }
        text
    }

    /// `build`; `models`, each with `model`, `passed`, `failed` (null, or `step` and `reason`) and what was measured.
    pub(super) fn json(&self) -> String {
        let model = |outcome: &Outcome| {
            let failed = outcome.failure.as_ref();
            let failed =
                failed.map(|(step, reason)| json!({"step": step.name(), "reason": reason}));
            let passed: Vec<_> = outcome.passed.iter().map(|step| step.name()).collect();
            let speed = |part: fn(Speed) -> f64| outcome.speed.map(part);
            json!({
                "model": outcome.model,
                "passed": passed,
                "failed": failed,
                "relative_max": outcome.relative_max,
                "load_ms": outcome.load.map(|load| load.as_secs_f64() * 1e3),
                "agent_us_p50": speed(|speed| speed.agent_us_p50),
                "onnxruntime_us_p50": speed(|speed| speed.onnxruntime_us_p50),
                "ratio": speed(Speed::ratio),
                "runs": outcome.speed.map(|speed| speed.runs),
            })
        };
        let models: Vec<Value> = self.outcomes.iter().map(model).collect();
        format!("{:#}\n", json!({"build": self.build, "models": models}))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::super::journey::Step;
    use super::super::source::Source;
    use super::*;

    fn outcome() -> Outcome {
        Outcome::new(&Source {
            name: "face".to_owned(),
            folder: "face".into(),
            consts: Vec::new(),
            shapes: Vec::new(),
        })
    }

    #[test]
    fn a_model_that_fails_names_the_step() {
        let mut failed = outcome();
        assert!(failed.take(Step::Pack, Ok(())));
        assert!(!failed.take(Step::Sign, Err(anyhow!("no key"))));
        assert!(failed.has_ended() && failed.failed_at(Step::Sign));
        assert_eq!(failed.line(), "face: FAILED at sign: no key");
        let outcomes = vec![failed];
        let report = Report {
            build: "a test".to_owned(),
            outcomes,
        };
        assert_eq!(report.failures(), ["face at sign"]);
        assert!(
            report.table().contains("| 1/9, fails: sign |"),
            "{}",
            report.table()
        );
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(
            json["models"][0]["failed"],
            json!({"step": "sign", "reason": "no key"})
        );
    }

    #[test]
    fn a_model_that_passed_every_step_has_a_ratio() {
        let mut passed = outcome();
        for step in Step::ALL {
            assert!(!passed.has_ended());
            assert!(passed.take(step, Ok(())));
        }
        assert!(passed.has_ended());
        passed.speed = Some(Speed {
            agent_us_p50: 3000.0,
            onnxruntime_us_p50: 2000.0,
            runs: 7,
        });
        let outcomes = vec![passed];
        let report = Report {
            build: "a test".to_owned(),
            outcomes,
        };
        assert!(report.failures().is_empty());
        assert!(report.table().contains("| 3.00 ms"), "{}", report.table());
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["models"][0]["ratio"], 1.5);
    }
}

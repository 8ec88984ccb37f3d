//! Reads metrics pages.

use anyhow::{Result, ensure};

use crate::http::Http;

/// The samples of a metrics page.
#[derive(Clone, Debug)]
pub struct Page(String);

impl Page {
    /// Fetches the page of a daemon.
    pub async fn fetch(http: &Http) -> Result<Self> {
        let answer = http.get("/metrics").await?;
        ensure!(answer.status.is_success(), "{}", answer.status);
        Ok(Self(String::from_utf8(answer.body.to_vec())?))
    }

    /// Sum of the samples of `name` whose labels contain each of `labels`, written `name="value"`.
    /// `None` if there is no such sample.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let samples = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (of, value) = rest.rsplit_once(' ')?;
            let ours = of.is_empty() || of.starts_with('{');
            let matches = ours && labels.iter().all(|label| of.contains(label));
            matches.then(|| value.parse().ok()).flatten()
        });
        samples.reduce(|sum: f64, value| sum + value)
    }
}

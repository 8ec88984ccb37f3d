//! What the agents announce, read from their metrics.
//!
//! An agent that cannot be read keeps its last demand for a while, so that a missed poll never
//! stops a relay, and then counts nothing: it may be gone for good.

use std::time::Duration;

use tidegate_control::scale::Demand;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::http::{CallError, Client, ServerUrl};
use crate::metrics_page::sum_of;

/// From poll to poll: as often as agents plan, so that no announcement waits longer than one tick.
pub(super) const PERIOD: Duration = tidegate_control::TICK;

/// Longest wait for an agent's metrics; below the period, so that polls never pile up.
const TIMEOUT: Duration = Duration::from_millis(200);
const _: () = assert!(TIMEOUT.as_millis() < PERIOD.as_millis());

/// How long an agent that cannot be read keeps its demand: a restart takes less.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// Longest page of metrics: some 4,000 series.
const METRICS_BYTES_MAX: usize = 1 << 20;

/// Largest demand that one agent can announce, in slots: above any fleet, so that a wrong figure of
/// one agent cannot hide the sum of the others.
const DEMAND_MAX: f64 = 1e6;

/// Relay slots that an agent reserves.
const RESERVED: &str = "tidegate_reserved_slots";

/// Requests that an agent has on relays now.
const IN_FLIGHT: &str = "tidegate_burst_in_flight";

/// One agent, as last read.
#[derive(Debug)]
struct Agent {
    client: Client,
    last: Option<(Instant, Demand)>,
    readable: bool,
}

/// Polls forever and publishes the sum over all agents after each round, changed or not.
pub(super) async fn poll(urls: Vec<ServerUrl>, sum: watch::Sender<Demand>) {
    let client = |url| Client::new(url, TIMEOUT, METRICS_BYTES_MAX);
    let mut agents: Vec<Agent> = urls
        .into_iter()
        .map(|url| Agent {
            client: client(url),
            last: None,
            readable: true,
        })
        .collect();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut reads = JoinSet::new();
        for (index, agent) in agents.iter().enumerate() {
            let client = agent.client.clone();
            reads.spawn(async move { (index, read(&client).await) });
        }
        while let Some(read) = reads.join_next().await {
            match read {
                Ok((index, read)) => agents[index].learn(Instant::now(), read),
                Err(error) => tracing::error!(%error, "a poll failed"),
            }
        }
        let now = Instant::now();
        sum.send_replace(
            agents
                .iter()
                .fold(Demand::default(), |sum, agent| agent.add_to(sum, now)),
        );
    }
}

impl Agent {
    /// Takes a new reading, or keeps the last one. Warns when that changes.
    fn learn(&mut self, now: Instant, read: Result<Demand, ReadError>) {
        match read {
            Ok(demand) => {
                self.last = Some((now, demand));
                if !std::mem::replace(&mut self.readable, true) {
                    tracing::info!(agent = %self.client.url(), "the agent can be read again");
                }
            }
            Err(error) => {
                if std::mem::replace(&mut self.readable, false) {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(agent = %self.client.url(), error, "cannot read the agent's demand");
                }
            }
        }
    }

    fn add_to(&self, sum: Demand, now: Instant) -> Demand {
        match self.last {
            Some((at, own)) if now.duration_since(at) < STALE_AFTER => Demand {
                in_flight: sum.in_flight + own.in_flight,
                reserved: sum.reserved + own.reserved,
            },
            Some(_) | None => sum,
        }
    }
}

/// Why an agent's demand is unknown.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("cannot fetch the metrics")]
    Call(#[from] CallError),
    #[error("the metrics were answered with {0}")]
    Status(hyper::StatusCode),
    #[error("the metrics have no {0}")]
    Missing(&'static str),
}

async fn read(client: &Client) -> Result<Demand, ReadError> {
    let response = client.get("/metrics").await?;
    if !response.status.is_success() {
        return Err(ReadError::Status(response.status));
    }
    let page = String::from_utf8_lossy(&response.body);
    let value = |name| match sum_of(&page, name) {
        Some(sum) => Ok(sum.min(DEMAND_MAX)),
        None => Err(ReadError::Missing(name)),
    };
    Ok(Demand {
        in_flight: value(IN_FLIGHT)?,
        reserved: value(RESERVED)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_that_cannot_be_read_keeps_its_demand_for_a_while() {
        let client = Client::new("http://127.0.0.1:1".parse().unwrap(), TIMEOUT, 1);
        let mut agent = Agent {
            client,
            last: None,
            readable: true,
        };
        let start = Instant::now();
        agent.learn(
            start,
            Ok(Demand {
                in_flight: 1.0,
                reserved: 2.0,
            }),
        );
        agent.learn(start + PERIOD, Err(ReadError::Missing(RESERVED)));
        let reserved = |after| agent.add_to(Demand::default(), start + after).reserved;
        assert_eq!(reserved(STALE_AFTER - PERIOD), 2.0);
        assert_eq!(reserved(STALE_AFTER), 0.0);
    }
}

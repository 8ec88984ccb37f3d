//! What the daemon tells the controller, and what the controller answers.

use std::time::Duration;

use tidegate_inference::Reason;

use crate::{ModelIndex, RelayId};

/// What `route` needs to know of one request.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// The model asked for.
    pub model: ModelIndex,
    /// Time left to its deadline.
    pub time_left: Duration,
    /// Bytes that a burst would send.
    pub bytes: usize,
    /// Jobs queued and running on this device now, without this one.
    pub backlog: usize,
    /// Uniform bits, for the choice between relays. The caller draws them.
    pub random: u64,
}

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// It runs on this device.
    Local(Reason),
    /// It runs on that relay.
    Burst(RelayId, Reason),
    /// No placement meets its deadline.
    Shed {
        /// When a new try may succeed; at least 10 ms, at most 30 s.
        retry_after: Duration,
    },
}

/// How a placed request ended. Every [`Route::Burst`] ends in exactly one of the relay variants.
#[derive(Clone, Copy, Debug)]
pub enum Outcome {
    /// Ran on this device.
    Local {
        /// The model that ran.
        model: ModelIndex,
        /// Time in the queue.
        queue: Duration,
        /// Wall time of the run.
        service: Duration,
        /// CPU time of the run; zero if unknown.
        cpu: Duration,
    },
    /// Ran on a relay.
    Relay {
        /// The relay.
        relay: RelayId,
        /// The model that ran.
        model: ModelIndex,
        /// From sending to the whole reply.
        sojourn: Duration,
        /// Time in the relay's queue.
        queue: Duration,
        /// Wall time of the run.
        service: Duration,
        /// Bytes both ways.
        bytes: usize,
    },
    /// A relay failed or refused it.
    RelayFailed {
        /// The relay.
        relay: RelayId,
    },
    /// Given up before the relay answered, which says nothing of the relay.
    RelayDropped {
        /// The relay.
        relay: RelayId,
    },
    /// Dropped before it ran here (cancelled, or its deadline passed in the queue).
    LocalDropped {
        /// The model asked for.
        model: ModelIndex,
    },
}

/// What a relay says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayLoad {
    /// Jobs that it runs at once; 0 leaves [`crate::Policy::relay_slots`] in force.
    pub slots: u32,
    /// Jobs running, of all agents.
    pub busy: u32,
    /// Jobs waiting, of all agents.
    pub queued: u32,
    /// Predicted wait of a new job.
    pub wait: Duration,
    /// It takes no new work.
    pub draining: bool,
    /// Most requests that this agent may have in flight there.
    pub credits: u32,
}

/// What the device says of itself, each tick.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Jobs waiting.
    pub queued: usize,
    /// Jobs running.
    pub busy: usize,
    /// How long the oldest waiting job has waited; zero if none waits.
    pub queue_delay: Duration,
    /// Cores' worth of CPU that this process may use, if known.
    pub cpu_quota: Option<f64>,
    /// CPU utilisation of the host, 0 to 1, if known.
    pub cpu_utilisation: Option<f64>,
}

/// Whether excess is being sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Everything that meets its deadline runs here.
    Local,
    /// The share above capacity goes to relays.
    Bursting,
}

/// What a tick concluded. Every number is finite and not negative.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Whether excess is being sent away.
    pub mode: Mode,
    /// Arrivals per second in the last second, all models together.
    pub arrival_rps: f64,
    /// Arrivals per second expected at the lead time.
    pub forecast_rps: f64,
    /// The quantile of the rate that is planned for, without the counting noise that the capacity
    /// leaves room for; the forecast itself where it is not padded.
    pub forecast_upper_rps: f64,
    /// Arrivals per second of the present mix of models that this device sustains within the SLO.
    pub capacity_rps: f64,
    /// Arrivals over capacity; at most [`SATURATION_MAX`].
    pub saturation: f64,
    /// Share of arrivals to send away, 0 to 1.
    pub burst_share: f64,
    /// Relay slots' worth of work wanted at the lead time, all relays together. Not rounded: the
    /// sum over agents is rounded once, to whole relays, where relays are started.
    pub reserve_slots: f64,
    /// The same, split over the relays that can take work; empty if there are none.
    pub reservations: Vec<(RelayId, f64)>,
    /// The lead time in use.
    pub lead: Duration,
    /// Changes of mode so far.
    pub mode_changes: u64,
}

/// Largest saturation reported.
pub const SATURATION_MAX: f64 = 1000.0;

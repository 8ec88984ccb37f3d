//! A discrete-event simulator over the daemons' controller and scaler.
//!
//! It knows one device with a first-in first-out queue, and relays that take time to start, have
//! slots and a queue of their own, lie behind a link, drain, and die when told to. The daemons'
//! parts that it stands for decide nothing, so a simulated run shows what the policy does, and the
//! same set-up, arrivals and seed give the same run.

mod arrivals;
mod fleet;
mod random;
mod report;
mod world;

use std::time::Duration;

pub use arrivals::{ARRIVALS_MAX, Shape, poisson};
pub use random::Random;
pub use report::{Report, Tally};

use crate::scale::ScalePolicy;
use crate::time::duration;
use crate::{Plan, Policy, Time};

/// How long a run of the model takes: lognormal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServiceTime {
    /// The mean.
    pub mean: Duration,
    /// Standard deviation over mean.
    pub variation: f64,
}

impl ServiceTime {
    fn draw(&self, random: &mut Random) -> Duration {
        let variance = (1.0 + self.variation * self.variation).ln();
        let factor = (variance.sqrt() * random.normal() - variance / 2.0).exp();
        duration(self.mean.as_secs_f64() * factor)
    }
}

/// The device.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Time of a run; the slots are the policy's.
    pub service: ServiceTime,
    /// Most jobs that wait; more are refused.
    pub queue_len_max: usize,
    /// From each time on, runs take this many times as long as `service` says. In order of time.
    pub slowdowns: Vec<(Time, f64)>,
}

/// The relays and the way to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// Bounds and pace of the number of relays. [`ScalePolicy::min`] of them are ready at the
    /// start.
    pub scale: ScalePolicy,
    /// From the order to start a relay until it serves.
    pub start_up: Duration,
    /// Time of a run there.
    pub service: ServiceTime,
    /// Most jobs that wait on one relay; more are refused.
    pub queue_len_max: usize,
    /// There and back, without the bytes.
    pub round_trip: Duration,
    /// Bytes per second of the link, for each request on its own.
    pub goodput_bytes_s: f64,
    /// When the oldest ready relay dies with all that it holds. In order of time.
    pub deaths: Vec<Time>,
}

/// Everything that a run depends on besides its arrivals.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// The device's policy.
    pub policy: Policy,
    /// The device.
    pub device: Device,
    /// The relays.
    pub fleet: Fleet,
    /// Bytes of a request.
    pub request_bytes: usize,
    /// Seed of service times and of the choices between relays.
    pub seed: u64,
}

impl Setup {
    /// A device like the demo's: runs of `service` on average, relays that serve as fast behind a
    /// loopback link and take `start_up` to start.
    #[must_use]
    pub fn new(policy: Policy, service: Duration, scale: ScalePolicy, start_up: Duration) -> Self {
        let service = ServiceTime {
            mean: service,
            variation: 0.15,
        };
        Self {
            policy,
            device: Device {
                service,
                queue_len_max: 64,
                slowdowns: Vec::new(),
            },
            fleet: Fleet {
                scale,
                start_up,
                service,
                queue_len_max: 64,
                round_trip: Duration::from_millis(1),
                goodput_bytes_s: 1e9,
                deaths: Vec::new(),
            },
            request_bytes: 100_000,
            seed: 1,
        }
    }
}

/// One tick of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// When.
    pub at: Time,
    /// What the controller concluded.
    pub plan: Plan,
    /// Jobs waiting and running on the device.
    pub backlog: usize,
    /// Relays that serve.
    pub relays_ready: usize,
    /// Relays that start, serve or drain.
    pub relays: usize,
    /// Requests refused so far.
    pub refused: u64,
}

/// A finished run.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The row of the report.
    pub report: Report,
    /// Every tick.
    pub moments: Vec<Moment>,
}

/// Runs `arrivals`, sorted by time, to their last answer.
#[must_use]
pub fn simulate(setup: &Setup, arrivals: &[Time]) -> Run {
    world::World::new(setup, arrivals).run()
}

//! One request and its reply, from the moment they are parsed until they are written.

use std::fmt;
use std::time::{Duration, Instant};

use crate::NamedTensor;

/// Longest time that a request may ask for; a longer one counts as this. Nobody waits longer for an
/// answer, and a place that is held for longer is as good as lost.
pub const TIME_MAX: Duration = Duration::from_secs(600);

/// How urgent a request is. Higher priorities leave the queue first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Served when nothing else waits.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Served before the others.
    High,
}

impl Priority {
    /// Every priority, lowest first.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];
}

/// A request, parsed and bounded, not yet matched against its model.
#[derive(Clone, Debug)]
pub struct Request {
    /// The caller's own identifier, given back in the reply.
    pub id: Option<String>,
    /// The model's name.
    pub model: String,
    /// The version asked for; any if absent.
    pub version: Option<String>,
    /// The inputs, in the order given.
    pub inputs: Vec<NamedTensor>,
    /// Names of the outputs wanted; all if empty.
    pub outputs: Vec<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// When an answer stops being useful; beyond [`TIME_MAX`] it counts as that. `None` leaves it to
    /// the daemon's default.
    pub deadline: Option<Instant>,
}

/// Where a request ran.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    /// On this device.
    Local,
    /// On the relay of this name.
    Relay(String),
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Relay(_) => f.write_str("relay"),
        }
    }
}

/// Why a request ran where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The device has room.
    Capacity,
    /// The forecast exceeds the device: the excess share goes to relays.
    Forecast,
    /// The local queue would miss the deadline.
    Deadline,
    /// No relay could take it.
    NoRelay,
    /// A relay failed, and the request was tried again here or elsewhere.
    Retry,
}

impl Reason {
    /// Every reason, in declaration order.
    pub const ALL: [Self; 5] = [
        Self::Capacity,
        Self::Forecast,
        Self::Deadline,
        Self::NoRelay,
        Self::Retry,
    ];

    /// A stable name for replies and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Forecast => "forecast",
            Self::Deadline => "deadline",
            Self::NoRelay => "no-relay",
            Self::Retry => "retry",
        }
    }
}

/// Where the time of a request went, as measured where it ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From acceptance to the start of the run.
    pub queue: Duration,
    /// The run itself: guest and graph.
    pub infer: Duration,
}

/// The outputs of a request, and how they came about.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The version of the model that answered.
    pub version: String,
    /// The outputs, in the model's order.
    pub outputs: Vec<NamedTensor>,
    /// Where it ran.
    pub placement: Placement,
    /// Why there.
    pub reason: Reason,
    /// Where the time went.
    pub timings: Timings,
}

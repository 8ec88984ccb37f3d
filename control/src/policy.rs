//! The operator's choices, with one set of defaults for every device and trace.

use std::time::Duration;

use crate::Time;

/// What the controller may assume of the future. The policy is otherwise the same for all.
#[derive(Clone, Debug, PartialEq)]
pub enum Foresight {
    /// Nothing is ever sent away.
    LocalOnly,
    /// The load stays as it is now: the mean rate of the last second, without padding.
    Reactive,
    /// The bank of experts and its calibrated quantile.
    Predictive,
    /// The arrival times, sorted, counted from the first arrival: the bound of every policy.
    Oracle(Vec<Time>),
}

/// The operator's choices. Values out of range are clamped where they are used.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// What is assumed of the future.
    pub foresight: Foresight,
    /// Worker threads of this device, at least 1.
    pub slots: usize,
    /// What a request may take from arrival to reply, at the 99th percentile.
    pub slo: Duration,
    /// Slots of one relay until it reports its own. Default 1.
    pub relay_slots: usize,
    /// Bursting begins when the upper forecast passes this part of capacity on two ticks in a row.
    /// Default 0.9, in (0, 1].
    pub burst_enter: f64,
    /// Bursting may end while arrivals are below this part of capacity. Default 0.7, at most
    /// `burst_enter`.
    pub burst_leave: f64,
    /// Bursting ends only after arrivals were low for this long, or for twice the lead time if that
    /// is longer. Default 10 s.
    pub burst_dwell: Duration,
    /// Bursting begins at once when the oldest waiting job has waited this part of the SLO.
    /// Default 0.5, in (0, 1].
    pub queue_breach: f64,
    /// A placement is comfortable if it is predicted to take at most this part of the time left;
    /// what lies between this and 1 goes wherever the prediction is shorter. Default 0.7, in (0,
    /// 1].
    pub deadline_margin: f64,
    /// What a request that misses its SLO costs, in the unit of `relay_cost`. Default 4.
    pub miss_cost: f64,
    /// What a relay slot that stays idle costs. With `miss_cost` it gives the quantile to plan for:
    /// `miss / (miss + relay)`, 0.8 by default. Queues and deadlines absorb much of a shortfall: in
    /// simulation 0.9 cost a tenth to a quarter more relay time on fast swings for no better
    /// service.
    pub relay_cost: f64,
    /// Time from asking for a relay until it is ready, until one was measured. Default 2 s.
    pub lead_prior: Duration,
    /// Service time of a model that has never run. Default a tenth of the SLO. Nothing is refused
    /// for its sake.
    pub service_prior: Duration,
    /// Round trip to a relay that has not answered yet. Default 20 ms.
    pub round_trip_prior: Duration,
}

impl Policy {
    /// Defaults for a device of `slots` worker threads.
    #[must_use]
    pub fn new(foresight: Foresight, slots: usize, slo: Duration) -> Self {
        Self {
            foresight,
            slots,
            slo,
            relay_slots: 1,
            burst_enter: 0.9,
            burst_leave: 0.7,
            burst_dwell: Duration::from_secs(10),
            queue_breach: 0.5,
            deadline_margin: 0.7,
            miss_cost: 4.0,
            relay_cost: 1.0,
            lead_prior: Duration::from_secs(2),
            service_prior: slo / 10,
            round_trip_prior: Duration::from_millis(20),
        }
    }

    /// The quantile at which one more reserved slot costs as much as it saves (newsvendor).
    #[must_use]
    pub fn reserve_quantile(&self) -> f64 {
        let quantile = self.miss_cost / (self.miss_cost + self.relay_cost);
        if quantile.is_finite() {
            quantile.clamp(0.5, 0.99)
        } else {
            0.8
        }
    }

    /// The same policy with every field in its range.
    pub(crate) fn clamped(mut self) -> Self {
        let part = |value: f64, low: f64, default: f64| {
            if value.is_finite() {
                value.clamp(low, 1.0)
            } else {
                default
            }
        };
        self.slots = self.slots.clamp(1, SLOTS_MAX);
        self.relay_slots = self.relay_slots.clamp(1, SLOTS_MAX);
        self.slo = self.slo.max(Duration::from_micros(1));
        self.burst_enter = part(self.burst_enter, 0.01, 0.9);
        self.burst_leave = part(self.burst_leave, 0.0, 0.7).min(self.burst_enter);
        self.queue_breach = part(self.queue_breach, 0.01, 0.5);
        self.deadline_margin = part(self.deadline_margin, 0.01, 0.7);
        if let Foresight::Oracle(times) = &mut self.foresight {
            times.sort_unstable();
        }
        self
    }
}

/// Most slots of one device or relay that the formulas are asked about.
const SLOTS_MAX: usize = 4096;

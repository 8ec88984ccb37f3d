//! The event loop: arrivals, runs, replies, relays and ticks, by time.

mod relays;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::fleet::{Job, Relay, State};
use super::{Moment, Random, Run, Setup, Tally};
use crate::scale::{Demand, Scaler};
use crate::time::duration;
use crate::{Controller, ModelIndex, Outcome, Query, RelayId, Route, Sample, TICK, Time};

/// The simulated device serves one model.
const MODEL: ModelIndex = ModelIndex(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Tick,
    LocalDone {
        request: usize,
        queue: Duration,
        service: Duration,
    },
    RelayReady(RelayId),
    RelayDies,
    AtRelay {
        relay: RelayId,
        request: usize,
    },
    RelayDone {
        relay: RelayId,
        request: usize,
        queue: Duration,
        service: Duration,
    },
    Reply {
        relay: RelayId,
        request: usize,
        queue: Duration,
        service: Duration,
        load: Load,
    },
    Refusal {
        relay: RelayId,
        request: usize,
    },
}

/// A load report on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    busy: u32,
    queued: u32,
    wait: Duration,
}

/// A run in progress.
#[derive(Debug)]
pub(super) struct World<'a> {
    setup: &'a Setup,
    arrivals: &'a [Time],
    now: Time,
    random: Random,
    controller: Controller,
    scaler: Scaler,
    events: BinaryHeap<Reverse<(Time, u64, Event)>>,
    sequence: u64,
    next: usize,
    pending: usize,
    queue: VecDeque<Job>,
    busy: usize,
    /// When each request was last sent to a relay.
    sent: Vec<Time>,
    relays: Vec<Relay>,
    relays_made: u64,
    relays_max: usize,
    relay_time: Duration,
    refused: u64,
    tally: Tally,
    moments: Vec<Moment>,
}

impl<'a> World<'a> {
    pub(super) fn new(setup: &'a Setup, arrivals: &'a [Time]) -> Self {
        let arrivals = &arrivals[..arrivals.len().min(super::ARRIVALS_MAX)];
        let mut world = Self {
            setup,
            arrivals,
            now: Time::default(),
            random: Random::new(setup.seed),
            controller: Controller::new(setup.policy.clone(), 1),
            scaler: Scaler::new(setup.fleet.scale),
            events: BinaryHeap::new(),
            sequence: 0,
            next: 0,
            pending: 0,
            queue: VecDeque::new(),
            busy: 0,
            sent: vec![Time::default(); arrivals.len()],
            relays: Vec::new(),
            relays_made: 0,
            relays_max: 0,
            relay_time: Duration::ZERO,
            refused: 0,
            tally: Tally::default(),
            moments: Vec::new(),
        };
        for _ in 0..setup.fleet.scale.min.min(setup.fleet.scale.max) {
            let id = world.start_relay();
            world.relay_ready(id);
        }
        for death in &setup.fleet.deaths {
            world.schedule(*death, Event::RelayDies);
        }
        world.schedule(Time(TICK), Event::Tick);
        world
    }

    pub(super) fn run(mut self) -> Run {
        while self.next < self.arrivals.len() || self.pending > 0 {
            let due = self.events.peek().map(|Reverse((at, ..))| *at);
            let arrival = self.arrivals.get(self.next).copied();
            if let Some(at) = arrival.filter(|at| due.is_none_or(|due| *at <= due)) {
                self.now = self.now.max(at);
                self.arrive();
            } else if let Some(Reverse((at, _, event))) = self.events.pop() {
                self.now = self.now.max(at);
                self.happen(event);
            }
        }
        for index in (0..self.relays.len()).rev() {
            self.end_relay(index);
        }
        let mut report = self.tally.report(self.setup.policy.slo);
        report.relay_seconds = self.relay_time.as_secs_f64();
        report.relays_max = self.relays_max as u64;
        report.mode_changes = self
            .moments
            .last()
            .map_or(0, |moment| moment.plan.mode_changes);
        Run {
            report,
            moments: self.moments,
        }
    }

    fn schedule(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.events.push(Reverse((at, self.sequence, event)));
    }

    fn arrive(&mut self) {
        let request = self.next;
        self.next += 1;
        self.pending += 1;
        self.tally.arrived();
        let query = self.query(request);
        let route = self.controller.route(self.now, &query);
        self.follow(request, route);
    }

    fn query(&mut self, request: usize) -> Query {
        let gone = self.now.0.saturating_sub(self.arrivals[request].0);
        Query {
            model: MODEL,
            time_left: self.setup.policy.slo.saturating_sub(gone),
            bytes: self.setup.request_bytes,
            backlog: self.queue.len() + self.busy,
            random: self.random.bits(),
        }
    }

    fn follow(&mut self, request: usize, route: Route) {
        match route {
            Route::Local(_) if self.queue.len() < self.setup.device.queue_len_max => {
                let came = self.now;
                self.queue.push_back(Job { request, came });
                self.begin_local();
            }
            Route::Local(_) | Route::Shed { retry_after: _ } => self.refuse(),
            Route::Burst(relay, _) => {
                let known = self
                    .relay(relay)
                    .expect("routes go to relays that were reported");
                debug_assert_eq!(
                    known.state,
                    State::Ready,
                    "a route to a relay that does not serve"
                );
                known.in_flight.push(request);
                self.sent[request] = self.now;
                let fleet = &self.setup.fleet;
                let transfer =
                    duration(self.setup.request_bytes as f64 / fleet.goodput_bytes_s.max(1.0));
                let at = self.now.after(fleet.round_trip / 2 + transfer);
                self.schedule(at, Event::AtRelay { relay, request });
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Tick => self.tick(),
            Event::LocalDone {
                request,
                queue,
                service,
            } => {
                self.busy -= 1;
                let outcome = Outcome::Local {
                    model: MODEL,
                    queue,
                    service,
                    cpu: service,
                };
                self.controller.finished(self.now, &outcome);
                self.tally
                    .answered_here(self.now.0 - self.arrivals[request].0);
                self.pending -= 1;
                self.begin_local();
            }
            Event::RelayReady(id) => self.relay_ready(id),
            Event::RelayDies => self.relay_dies(),
            Event::AtRelay { relay, request } => self.at_relay(relay, request),
            Event::RelayDone {
                relay,
                request,
                queue,
                service,
            } => {
                self.relay_done(relay, request, queue, service);
            }
            Event::Reply {
                relay,
                request,
                queue,
                service,
                load,
            } => {
                if self.leave_relay(relay, request) {
                    self.reply(relay, request, queue, service, load);
                }
            }
            Event::Refusal { relay, request } => {
                if self.leave_relay(relay, request) {
                    self.try_again(relay, request);
                }
            }
        }
    }

    fn begin_local(&mut self) {
        while self.busy < self.setup.policy.slots.max(1) {
            let Some(job) = self.queue.pop_front() else {
                return;
            };
            let slo = self.setup.policy.slo;
            if self.now.0.saturating_sub(self.arrivals[job.request].0) >= slo {
                self.controller
                    .finished(self.now, &Outcome::LocalDropped { model: MODEL });
                self.refuse();
                continue;
            }
            self.busy += 1;
            let slower = self
                .setup
                .device
                .slowdowns
                .iter()
                .rev()
                .find(|(from, _)| *from <= self.now);
            let drawn = self.setup.device.service.draw(&mut self.random);
            let service = duration(drawn.as_secs_f64() * slower.map_or(1.0, |(_, factor)| *factor));
            let queue = self.now.0.saturating_sub(job.came.0);
            let done = Event::LocalDone {
                request: job.request,
                queue,
                service,
            };
            self.schedule(self.now.after(service), done);
        }
    }

    fn refuse(&mut self) {
        self.tally.refused();
        self.refused += 1;
        self.pending -= 1;
    }

    fn tick(&mut self) {
        self.schedule(self.now.after(TICK), Event::Tick);
        let sample = Sample {
            queued: self.queue.len(),
            busy: self.busy,
            queue_delay: self
                .queue
                .front()
                .map_or(Duration::ZERO, |job| self.now.0 - job.came.0),
            cpu_quota: None,
            cpu_utilisation: None,
        };
        let plan = self.controller.observe(self.now, &sample);
        let demand = Demand {
            in_flight: self
                .relays
                .iter()
                .map(|relay| relay.in_flight.len())
                .sum::<usize>() as f64,
            reserved: plan.reserve_slots,
        };
        self.scale(demand);
        let count = |state| {
            self.relays
                .iter()
                .filter(|relay| relay.state == state)
                .count()
        };
        self.moments.push(Moment {
            at: self.now,
            backlog: self.queue.len() + self.busy,
            relays_ready: count(State::Ready),
            relays: self.relays.len(),
            refused: self.refused,
            plan,
        });
    }
}

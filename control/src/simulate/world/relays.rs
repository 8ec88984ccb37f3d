//! The life of the simulated relays, and of the requests on them.

use std::time::Duration;

use super::{Event, Load, MODEL, World};
use crate::scale::Demand;
use crate::simulate::fleet::{Begun, Job, Relay, State};
use crate::{Outcome, RelayId, RelayLoad};

impl World<'_> {
    pub(super) fn scale(&mut self, demand: Demand) {
        let serving = |relay: &Relay| relay.state != State::Draining;
        let current = self.relays.iter().filter(|relay| serving(relay)).count();
        let wanted = self.scaler.desired(self.now, demand, current);
        for _ in current..wanted {
            let id = self.start_relay();
            self.schedule(
                self.now.after(self.setup.fleet.start_up),
                Event::RelayReady(id),
            );
        }
        // The youngest stop first: those that still start hold no work.
        let surplus = current.saturating_sub(wanted);
        let stopping = self
            .relays
            .iter()
            .rev()
            .filter(|relay| serving(relay))
            .take(surplus);
        for id in stopping.map(|relay| relay.id).collect::<Vec<_>>() {
            self.drain_relay(id);
        }
        self.relays_max = self.relays_max.max(self.relays.len());
    }

    pub(super) fn start_relay(&mut self) -> RelayId {
        let id = RelayId(self.relays_made);
        self.relays_made += 1;
        self.relays.push(Relay::new(id, State::Starting, self.now));
        self.relays_max = self.relays_max.max(self.relays.len());
        id
    }

    pub(super) fn relay_ready(&mut self, id: RelayId) {
        let fleet = &self.setup.fleet;
        let Some(relay) = self.relays.iter_mut().find(|relay| relay.id == id) else {
            return;
        };
        if relay.state == State::Starting {
            relay.state = State::Ready;
            self.controller
                .relay_reported(self.now, id, &relay.load(fleet));
            self.controller.relay_model_ready(self.now, id, MODEL);
        }
    }

    fn drain_relay(&mut self, id: RelayId) {
        let fleet = &self.setup.fleet;
        let Some(index) = self.relays.iter().position(|relay| relay.id == id) else {
            return;
        };
        let relay = &mut self.relays[index];
        let served = relay.state == State::Ready;
        relay.state = State::Draining;
        if served {
            self.controller
                .relay_reported(self.now, id, &relay.load(fleet));
        }
        self.end_if_drained(index);
    }

    pub(super) fn end_relay(&mut self, index: usize) {
        let relay = self.relays.remove(index);
        self.relay_time += self.now.0.saturating_sub(relay.started.0);
        self.controller.relay_gone(self.now, relay.id);
    }

    pub(super) fn relay_dies(&mut self) {
        let Some(index) = self
            .relays
            .iter()
            .position(|relay| relay.state == State::Ready)
        else {
            return;
        };
        let id = self.relays[index].id;
        let orphans = std::mem::take(&mut self.relays[index].in_flight);
        self.end_relay(index);
        for request in orphans {
            self.try_again(id, request);
        }
    }

    pub(super) fn at_relay(&mut self, id: RelayId, request: usize) {
        let (now, fleet) = (self.now, &self.setup.fleet);
        let Some(relay) = self.relays.iter_mut().find(|relay| relay.id == id) else {
            return;
        };
        if relay.take(fleet, Job { request, came: now }) {
            self.begin_on(id);
        } else {
            let event = Event::Refusal { relay: id, request };
            self.schedule(now.after(fleet.round_trip / 2), event);
        }
    }

    fn begin_on(&mut self, id: RelayId) {
        let (now, fleet) = (self.now, &self.setup.fleet);
        let Some(relay) = self.relays.iter_mut().find(|relay| relay.id == id) else {
            return;
        };
        if let Some(begun) = relay.begin(now, fleet, &mut self.random) {
            let Begun {
                request,
                queue,
                service,
            } = begun;
            let event = Event::RelayDone {
                relay: id,
                request,
                queue,
                service,
            };
            self.schedule(now.after(service), event);
        }
    }

    pub(super) fn relay_done(
        &mut self,
        id: RelayId,
        request: usize,
        queue: Duration,
        service: Duration,
    ) {
        let fleet = &self.setup.fleet;
        let Some(relay) = self.relay(id) else { return };
        relay.end();
        let RelayLoad {
            busy, queued, wait, ..
        } = relay.load(fleet);
        let load = Load { busy, queued, wait };
        let at = self.now.after(fleet.round_trip / 2);
        self.schedule(
            at,
            Event::Reply {
                relay: id,
                request,
                queue,
                service,
                load,
            },
        );
        self.begin_on(id);
    }

    /// Notes that a request is no longer with a relay. False if the relay died with it.
    pub(super) fn leave_relay(&mut self, id: RelayId, request: usize) -> bool {
        let Some(relay) = self.relay(id) else {
            return false;
        };
        relay.in_flight.retain(|held| *held != request);
        true
    }

    pub(super) fn reply(
        &mut self,
        id: RelayId,
        request: usize,
        queue: Duration,
        service: Duration,
        load: Load,
    ) {
        let outcome = Outcome::Relay {
            relay: id,
            model: MODEL,
            sojourn: self.now.0 - self.sent[request].0,
            queue,
            service,
            bytes: self.setup.request_bytes,
        };
        self.controller.finished(self.now, &outcome);
        self.tally
            .answered_by_relay(self.now.0 - self.arrivals[request].0);
        self.pending -= 1;
        let fleet = &self.setup.fleet;
        let Some(index) = self.relays.iter().position(|relay| relay.id == id) else {
            return;
        };
        let Load { busy, queued, wait } = load;
        let report = RelayLoad {
            busy,
            queued,
            wait,
            ..self.relays[index].load(fleet)
        };
        self.controller.relay_reported(self.now, id, &report);
        self.end_if_drained(index);
    }

    fn end_if_drained(&mut self, index: usize) {
        let relay = &self.relays[index];
        if relay.state == State::Draining && relay.in_flight.is_empty() {
            self.end_relay(index);
        }
    }

    pub(super) fn try_again(&mut self, id: RelayId, request: usize) {
        self.controller
            .finished(self.now, &Outcome::RelayFailed { relay: id });
        let query = self.query(request);
        let route = self.controller.route_again(self.now, &query);
        self.follow(request, route);
        if let Some(index) = self.relays.iter().position(|relay| relay.id == id) {
            self.end_if_drained(index);
        }
    }

    pub(super) fn relay(&mut self, id: RelayId) -> Option<&mut Relay> {
        self.relays.iter_mut().find(|relay| relay.id == id)
    }
}

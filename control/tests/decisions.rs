//! Single decisions through the border: each a fact that must hold.

use std::time::Duration;

use tidegate_control::simulate::Random;
use tidegate_control::{
    Controller, Foresight, Mode, ModelIndex, Outcome, Plan, Policy, Query, RelayId, RelayLoad,
    Route, Sample, TICK, Time,
};
use tidegate_inference::Reason;

const MODEL: ModelIndex = ModelIndex(0);
const SLO: Duration = Duration::from_millis(250);
const NEAR: RelayId = RelayId(1);
const FAR: RelayId = RelayId(2);

/// A controller with its own clock.
struct Bed {
    controller: Controller,
    now: Time,
    random: Random,
}

impl Bed {
    fn new(foresight: Foresight) -> Self {
        Self {
            controller: Controller::new(Policy::new(foresight, 1, SLO), 1),
            now: Time::default(),
            random: Random::new(3),
        }
    }

    /// One whose model takes 25 ms.
    fn measured(foresight: Foresight) -> Self {
        let mut bed = Self::new(foresight);
        (0..20).for_each(|_| bed.ran(25, 25));
        bed
    }

    fn ran(&mut self, service_ms: u64, cpu_ms: u64) {
        let [service, cpu] = [service_ms, cpu_ms].map(Duration::from_millis);
        let queue = Duration::ZERO;
        let outcome = Outcome::Local {
            model: MODEL,
            queue,
            service,
            cpu,
        };
        self.controller.finished(self.now, &outcome);
    }

    fn relay(&mut self, relay: RelayId, load: RelayLoad) -> &mut Self {
        self.controller.relay_reported(self.now, relay, &load);
        self.controller.relay_model_ready(self.now, relay, MODEL);
        self
    }

    fn answered(&mut self, relay: RelayId, travel_ms: u64) {
        let service = Duration::from_millis(25);
        let sojourn = service + Duration::from_millis(travel_ms);
        let outcome = Outcome::Relay {
            relay,
            model: MODEL,
            sojourn,
            queue: Duration::ZERO,
            service,
            bytes: 1000,
        };
        self.controller.finished(self.now, &outcome);
    }

    fn route(&mut self, backlog: usize) -> Route {
        let query = Query {
            model: MODEL,
            time_left: SLO,
            bytes: 1000,
            backlog,
            random: self.random.bits(),
        };
        self.controller.route(self.now, &query)
    }

    /// Ticks for `seconds` with `rps` arrivals a second, evenly; gives the last plan.
    fn load(&mut self, seconds: f64, rps: f64, sample: &Sample) -> Plan {
        let (mut plan, mut owed) = (self.controller.observe(self.now, sample), 0.0);
        let end = self.now.0 + Duration::from_secs_f64(seconds);
        while self.now.0 < end {
            owed += rps * TICK.as_secs_f64();
            while owed >= 1.0 {
                owed -= 1.0;
                self.route(0);
                self.ran(25, 25);
            }
            self.now.0 += TICK;
            plan = self.controller.observe(self.now, sample);
        }
        plan
    }
}

fn ready() -> RelayLoad {
    RelayLoad {
        slots: 1,
        credits: 8,
        ..RelayLoad::default()
    }
}

#[test]
fn without_relays_the_queue_fills_until_the_deadline_and_then_refuses() {
    let mut bed = Bed::measured(Foresight::Predictive);
    assert_eq!(bed.route(0), Route::Local(Reason::Capacity));
    assert_eq!(bed.route(9), Route::Local(Reason::NoRelay));
    let Route::Shed { retry_after } = bed.route(20) else {
        panic!("20 runs take 500 ms")
    };
    assert!(
        (200..=300).contains(&retry_after.as_millis()),
        "{retry_after:?}"
    );
}

#[test]
fn nothing_is_refused_before_a_run_was_measured() {
    let mut bed = Bed::new(Foresight::Predictive);
    assert_eq!(bed.route(1000), Route::Local(Reason::NoRelay));
}

#[test]
fn a_relay_takes_what_would_miss_its_deadline_here() {
    let burst = Route::Burst(NEAR, Reason::Deadline);
    let check = |foresight: Foresight, load: RelayLoad, expected: bool| {
        let mut bed = Bed::measured(foresight);
        bed.relay(NEAR, load);
        assert_eq!(bed.route(0), Route::Local(Reason::Capacity));
        assert_eq!(bed.route(20) == burst, expected, "{load:?}");
    };
    check(Foresight::Predictive, ready(), true);
    check(Foresight::Reactive, ready(), true);
    check(Foresight::Oracle(vec![]), ready(), true);
    check(Foresight::LocalOnly, ready(), false);
    check(
        Foresight::Predictive,
        RelayLoad {
            draining: true,
            ..ready()
        },
        false,
    );
    check(
        Foresight::Predictive,
        RelayLoad {
            credits: 0,
            ..ready()
        },
        false,
    );
    let wait = Duration::from_secs(1);
    check(Foresight::Predictive, RelayLoad { wait, ..ready() }, false);
}

#[test]
fn credits_bound_what_is_in_flight_and_come_back() {
    let mut bed = Bed::measured(Foresight::Predictive);
    bed.relay(
        NEAR,
        RelayLoad {
            slots: 4,
            credits: 2,
            ..ready()
        },
    );
    let bursts = |bed: &mut Bed| {
        (0..5)
            .filter(|_| matches!(bed.route(20), Route::Burst(..)))
            .count()
    };
    assert_eq!(bursts(&mut bed), 2);
    bed.answered(NEAR, 1);
    bed.controller
        .finished(bed.now, &Outcome::RelayDropped { relay: NEAR });
    assert_eq!(bursts(&mut bed), 2);
}

#[test]
fn the_nearer_of_two_relays_is_taken_and_a_gone_one_stays_gone() {
    let mut bed = Bed::measured(Foresight::Predictive);
    bed.relay(NEAR, ready()).relay(FAR, ready());
    bed.answered(NEAR, 1);
    bed.answered(FAR, 60);
    assert_eq!(bed.route(20), Route::Burst(NEAR, Reason::Deadline));
    bed.controller.relay_gone(bed.now, NEAR);
    bed.relay(NEAR, ready());
    assert_eq!(bed.route(20), Route::Burst(FAR, Reason::Deadline));
}

#[test]
fn a_failing_relay_is_left_alone_and_tried_again() {
    let mut bed = Bed::measured(Foresight::Predictive);
    bed.relay(NEAR, ready());
    for _ in 0..4 {
        bed.controller
            .finished(bed.now, &Outcome::RelayFailed { relay: NEAR });
    }
    assert!(matches!(bed.route(20), Route::Shed { .. }));
    bed.now.0 += Duration::from_secs(8);
    assert_eq!(bed.route(20), Route::Burst(NEAR, Reason::Deadline));
}

#[test]
fn a_retry_is_no_new_arrival() {
    let mut bed = Bed::measured(Foresight::Predictive);
    let query = Query {
        model: MODEL,
        time_left: SLO,
        bytes: 1,
        backlog: 0,
        random: 0,
    };
    for _ in 0..8 {
        bed.now.0 += TICK;
        assert_eq!(
            bed.controller.route_again(bed.now, &query),
            Route::Local(Reason::Retry)
        );
        assert_eq!(
            bed.controller
                .observe(bed.now, &Sample::default())
                .arrival_rps,
            0.0
        );
    }
}

#[test]
fn the_share_sent_away_is_the_excess_and_only_with_busy_slots() {
    let mut bed = Bed::measured(Foresight::Predictive);
    bed.relay(
        NEAR,
        RelayLoad {
            slots: 64,
            credits: 1000,
            ..ready()
        },
    );
    let plan = bed.load(20.0, 60.0, &Sample::default());
    assert_eq!(plan.mode, Mode::Bursting);
    let excess = 1.0 - plan.capacity_rps / 60.0;
    assert!((plan.burst_share - excess).abs() < 0.02, "{plan:?}");
    let burst = Route::Burst(NEAR, Reason::Forecast);
    let sent = (0..200).filter(|_| bed.route(1) == burst).count() as f64;
    assert!((sent / 200.0 - excess).abs() < 0.03, "{sent}");
    assert!((0..50).all(|_| bed.route(0) == Route::Local(Reason::Capacity)));
}

#[test]
fn the_lead_time_is_measured_from_asking_to_ready() {
    let mut bed = Bed::measured(Foresight::Predictive);
    assert_eq!(
        bed.load(0.0, 0.0, &Sample::default()).lead,
        Duration::from_secs(2)
    );
    while bed.load(0.25, 60.0, &Sample::default()).reserve_slots == 0.0 {}
    bed.load(5.0, 60.0, &Sample::default());
    bed.relay(NEAR, ready());
    let lead = bed.load(0.0, 0.0, &Sample::default()).lead;
    assert!((5.0..=5.6).contains(&lead.as_secs_f64()), "{lead:?}");
}

#[test]
fn the_oracle_reserves_for_what_will_arrive() {
    // Ten a second for 20 s, then a hundred; the lead time is 2 s.
    let mut times: Vec<Time> = (0..200)
        .map(|at| Time(Duration::from_millis(at * 100)))
        .collect();
    times.extend((0..1000).map(|at| Time(Duration::from_millis(20_000 + at * 10))));
    let mut bed = Bed::measured(Foresight::Oracle(times));
    let before = bed.load(16.0, 10.0, &Sample::default());
    assert!(
        (before.reserve_slots, before.mode) == (0.0, Mode::Local),
        "{before:?}"
    );
    let after = bed.load(3.5, 10.0, &Sample::default());
    assert!(
        after.forecast_rps > 90.0 && after.reserve_slots > 1.0,
        "{after:?}"
    );
}

#[test]
fn a_cpu_quota_bounds_capacity() {
    let capacity = |slots: usize, cpu_ms: u64, quota: Option<f64>| {
        let mut bed = Bed::new(Foresight::LocalOnly);
        bed.controller = Controller::new(Policy::new(Foresight::LocalOnly, slots, SLO), 1);
        let sample = Sample {
            cpu_quota: quota,
            ..Sample::default()
        };
        for _ in 0..40 {
            bed.route(0);
            bed.ran(25, cpu_ms);
            bed.now.0 += TICK;
            bed.controller.observe(bed.now, &sample);
        }
        bed.controller.capacity_rps(bed.now, MODEL)
    };
    let free = capacity(2, 25, None);
    assert!((free - capacity(2, 25, Some(8.0))).abs() < 1e-9);
    let one = capacity(2, 25, Some(1.0));
    assert!((0.4..=0.5).contains(&(one / free)), "{one} of {free}");
    // Runs that the quota stretches to twice their CPU time have paid for it already.
    assert!((free - capacity(2, 12, Some(1.0))).abs() < 0.05 * free);
}

#[test]
fn trust_falls_when_the_queue_is_long_below_capacity_and_comes_back() {
    let mut bed = Bed::measured(Foresight::LocalOnly);
    let calm = bed.load(10.0, 20.0, &Sample::default()).capacity_rps;
    let queue_delay = SLO;
    let late = Sample {
        queue_delay,
        busy: 1,
        ..Sample::default()
    };
    let low = bed.load(10.0, 5.0, &late).capacity_rps;
    assert!((0.29..=0.4).contains(&(low / calm)), "{low} of {calm}");
    let back = bed.load(20.0, 20.0, &Sample::default()).capacity_rps;
    assert!((back / calm - 1.0).abs() < 0.02, "{back} of {calm}");
}

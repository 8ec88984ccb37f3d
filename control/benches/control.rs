//! What does a decision cost under the lock? `route` 1 us, `observe` 5 us.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tidegate_control::simulate::Random;
use tidegate_control::{
    Controller, Foresight, ModelIndex, Outcome, Policy, Query, RelayId, RelayLoad, Sample, TICK,
    Time,
};

const MODELS: usize = 4;
const RELAYS: u64 = 8;

/// A controller that bursts: 4 models and 8 relays, all measured, at twice its capacity.
fn busy() -> (Controller, Time, Random) {
    let policy = Policy::new(Foresight::Predictive, 1, Duration::from_millis(250));
    let mut controller = Controller::new(policy, MODELS);
    let (mut now, mut random) = (Time::default(), Random::new(1));
    let (queue, service) = (Duration::from_millis(1), Duration::from_millis(25));
    for relay in (0..RELAYS).map(RelayId) {
        let load = RelayLoad {
            slots: 1,
            credits: u32::MAX,
            ..RelayLoad::default()
        };
        controller.relay_reported(now, relay, &load);
        (0..MODELS).for_each(|model| controller.relay_model_ready(now, relay, ModelIndex(model)));
    }
    for _ in 0..400 {
        for request in 0..20 {
            let (model, relay) = (
                ModelIndex(request % MODELS),
                RelayId(random.bits() % RELAYS),
            );
            controller.route(now, &query(&mut random, request));
            let sojourn = service + Duration::from_millis(3);
            controller.finished(
                now,
                &Outcome::Local {
                    model,
                    queue,
                    service,
                    cpu: service,
                },
            );
            controller.finished(
                now,
                &Outcome::Relay {
                    relay,
                    model,
                    sojourn,
                    queue,
                    service,
                    bytes: 1000,
                },
            );
        }
        now.0 += TICK;
        controller.observe(now, &Sample::default());
    }
    (controller, now, random)
}

fn query(random: &mut Random, request: usize) -> Query {
    Query {
        model: ModelIndex(request % MODELS),
        time_left: Duration::from_millis(250),
        bytes: 100_000,
        backlog: request % 12,
        random: random.bits(),
    }
}

fn control(criterion: &mut Criterion) {
    let (mut controller, mut now, mut random) = busy();
    let mut request = 0;
    criterion.bench_function("route", |bencher| {
        bencher.iter(|| {
            request += 1;
            now.0 += Duration::from_micros(10);
            black_box(controller.route(now, &query(&mut random, request)))
        });
    });

    let (mut controller, mut now, mut random) = busy();
    criterion.bench_function("observe", |bencher| {
        bencher.iter(|| {
            let service = Duration::from_micros(20_000 + random.bits() % 10_000);
            let outcome = Outcome::Local {
                model: ModelIndex(0),
                queue: service,
                service,
                cpu: service,
            };
            controller.finished(now, &outcome);
            controller.route(now, &query(&mut random, 0));
            now.0 += TICK;
            black_box(controller.observe(now, &Sample::default()))
        });
    });
}

criterion_group!(benches, control);
criterion_main!(benches);

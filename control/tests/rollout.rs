//! Rollouts: which version serves, when one goes back, and how often that is a mistake.

use std::time::Duration;

use proptest::prelude::*;
use tidegate_control::Time;
use tidegate_control::rollout::{
    BeginError, Cause, Ran, Rollout, RolloutPolicy, SHARE_MAX, SHARE_MIN, Stage, Turn,
};
use tidegate_control::simulate::Random;
use tidegate_inference::Digest;

const OLD: Digest = Digest([1; 32]);
const NEW: Digest = Digest([2; 32]);
const NEXT: Digest = Digest([3; 32]);

fn policy(canary_share: f64) -> RolloutPolicy {
    RolloutPolicy {
        canary_share,
        ..RolloutPolicy::default()
    }
}

fn at(ms: u64) -> Time {
    Time(Duration::from_millis(ms))
}

fn answered(service_ms: f64) -> Ran {
    let service = Duration::from_secs_f64(service_ms / 1e3);
    Ran::Answered { service }
}

/// A version: how often it fails, and how long it takes, with a spread of a tenth.
#[derive(Clone, Copy)]
struct Behaviour {
    failing: f64,
    service_ms: f64,
}

const GOOD: Behaviour = Behaviour {
    failing: 0.0,
    service_ms: 10.0,
};

impl Behaviour {
    fn run(self, random: &mut Random) -> Ran {
        let service_ms = self.service_ms * (0.1 * random.normal()).exp();
        match random.unit() <= self.failing {
            true => Ran::Failed,
            false => answered(service_ms),
        }
    }
}

/// A rollout of `OLD` that has served for a while, and has just begun `NEW`.
fn begun(policy: RolloutPolicy, old: Behaviour, random: &mut Random) -> Rollout {
    let mut rollout = Rollout::new(policy, OLD, []);
    for _ in 0..256 {
        assert_eq!(rollout.pick(), OLD);
        assert_eq!(rollout.ran(at(0), OLD, old.run(random)), None);
    }
    let begun = rollout.begin(at(0), NEW);
    begun.expect("nothing else is under way");
    rollout
}

/// Serves a request a millisecond until the rollout turns; also says how many that took.
fn serve(
    rollout: &mut Rollout,
    old: Behaviour,
    new: Behaviour,
    random: &mut Random,
    from: u64,
) -> (Turn, u64) {
    for request in 0.. {
        let now = at(from + request);
        let version = rollout.pick();
        let behaviour = if version == NEW { new } else { old };
        let ran = behaviour.run(random);
        let turn = rollout.ran(now, version, ran).or_else(|| rollout.tick(now));
        if let Some(turn) = turn {
            return (turn, request + 1);
        }
    }
    unreachable!("time ends every stage")
}

/// Whether `new` reaches the end of its watch, of `seeds` rollouts.
fn accepted(share: f64, old: Behaviour, new: Behaviour, seeds: u64) -> u64 {
    let runs = (0..seeds).filter(|seed| {
        let mut random = Random::new(*seed);
        let short = RolloutPolicy {
            canary_max: Duration::from_secs(5),
            watch: Duration::from_secs(5),
            ..policy(share)
        };
        let mut rollout = begun(short, old, &mut random);
        let (first, _) = serve(&mut rollout, old, new, &mut random, 0);
        matches!(first, Turn::Promoted { .. })
            && matches!(
                serve(&mut rollout, old, new, &mut random, 10_000).0,
                Turn::Settled { old: OLD }
            )
    });
    runs.count() as u64
}

#[test]
fn an_equal_version_is_promoted() {
    for share in [0.02, 0.1, 0.5] {
        for failing in [0.0, 0.05] {
            let equal = Behaviour { failing, ..GOOD };
            let accepted = accepted(share, equal, equal, 300);
            // One in twenty may be refused in each stage; seeds are fixed, so this does not flicker.
            assert!(accepted >= 280, "{accepted} of 300 at {share}, {failing}");
        }
    }
}

#[test]
fn a_slightly_slower_version_is_promoted() {
    let slower = Behaviour {
        service_ms: 11.5,
        ..GOOD
    };
    let accepted = accepted(0.1, GOOD, slower, 300);
    assert!(accepted >= 285, "{accepted} of 300");
}

#[test]
fn a_worse_version_does_not_get_through() {
    let failing = Behaviour {
        failing: 0.05,
        ..GOOD
    };
    let slow = Behaviour {
        service_ms: 15.0,
        ..GOOD
    };
    for worse in [failing, slow] {
        assert!(accepted(0.1, GOOD, worse, 100) <= 2);
    }
}

#[test]
fn a_version_that_always_fails_goes_back_within_a_few_of_its_requests() {
    let broken = Behaviour {
        failing: 1.0,
        ..GOOD
    };
    for (share, own_max) in [(0.01, 4.0), (0.1, 5.0), (0.25, 8.0), (0.5, 13.0)] {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let mut rollout = begun(policy(share), GOOD, &mut random);
            let (turn, requests) = serve(&mut rollout, GOOD, broken, &mut random, 0);
            let Turn::RolledBack {
                new: NEW,
                cause: Cause::Failures,
                figures,
            } = turn
            else {
                panic!("{turn:?}")
            };
            assert!(figures.new.runs as f64 <= own_max, "{share}: {figures:?}");
            assert!(
                requests as f64 <= (own_max + 1.0) / share,
                "{share}: {requests}"
            );
        }
    }
}

#[test]
fn a_version_three_times_as_slow_goes_back_soon() {
    let slow = Behaviour {
        service_ms: 30.0,
        ..GOOD
    };
    for seed in 0..100 {
        let mut random = Random::new(seed);
        let mut rollout = begun(policy(0.1), GOOD, &mut random);
        let (turn, requests) = serve(&mut rollout, GOOD, slow, &mut random, 0);
        let cause = Cause::Latency;
        assert!(matches!(turn, Turn::RolledBack { cause: got, .. } if got == cause));
        assert!(requests <= 400, "{requests} with seed {seed}");
    }
}

#[test]
fn a_version_that_never_comes_back_is_slow() {
    let mut random = Random::new(1);
    let mut rollout = begun(policy(0.1), GOOD, &mut random);
    for request in 0..400 {
        let version = rollout.pick();
        let service = Duration::from_secs(1);
        let ran = match version == NEW {
            true => Ran::GivenUp { service },
            false => GOOD.run(&mut random),
        };
        if let Some(turn) = rollout.ran(at(request), version, ran) {
            assert!(matches!(
                turn,
                Turn::RolledBack {
                    cause: Cause::Latency,
                    ..
                }
            ));
            return;
        }
    }
    panic!("still {:?}", rollout.stage());
}

#[test]
fn what_turns_bad_after_the_promotion_goes_back_too() {
    let mut random = Random::new(1);
    let mut rollout = begun(policy(0.1), GOOD, &mut random);
    let (turn, _) = serve(&mut rollout, GOOD, GOOD, &mut random, 0);
    assert!(matches!(turn, Turn::Promoted { new: NEW, figures } if figures.new.runs >= 100));
    assert_eq!(rollout.current(), NEW);
    assert_eq!(rollout.stage(), Stage::Watch { old: OLD });
    let broken = Behaviour {
        failing: 1.0,
        ..GOOD
    };
    let (turn, requests) = serve(&mut rollout, GOOD, broken, &mut random, 1000);
    assert!(matches!(turn, Turn::RolledBack { new: NEW, .. }));
    assert!(requests <= 200, "{requests}");
    assert_eq!((rollout.current(), rollout.stage()), (OLD, Stage::Stable));
}

#[test]
fn bad_weather_for_both_versions_is_no_reason_to_go_back() {
    let mut back = 0;
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut rollout = begun(policy(0.1), GOOD, &mut random);
        // The machine becomes four times as slow in the middle, and every third request fails.
        for request in 0..1000 {
            let weather = match request {
                0..50 => GOOD,
                _ => Behaviour {
                    failing: 0.3,
                    service_ms: 40.0,
                },
            };
            let version = rollout.pick();
            let ran = weather.run(&mut random);
            match rollout.ran(at(request), version, ran) {
                Some(Turn::RolledBack { .. }) => back += 1,
                Some(Turn::Promoted { .. }) => break,
                Some(Turn::Settled { .. }) | None => {}
            }
        }
    }
    assert!(back <= 4, "{back} of 200");
}

#[test]
fn without_requests_time_promotes_and_settles() {
    let mut rollout = Rollout::new(policy(0.1), OLD, []);
    rollout.begin(at(0), NEW).unwrap();
    assert_eq!(rollout.tick(at(599_999)), None);
    let promoted = rollout.tick(at(600_000));
    assert!(matches!(promoted, Some(Turn::Promoted { new: NEW, .. })));
    assert_eq!(rollout.tick(at(899_999)), None);
    assert_eq!(rollout.tick(at(900_000)), Some(Turn::Settled { old: OLD }));
    assert_eq!(rollout.tick(at(u64::MAX)), None);
}

#[test]
fn a_version_that_went_back_is_not_begun_again_and_others_are() {
    let mut random = Random::new(1);
    let mut rollout = begun(policy(0.1), GOOD, &mut random);
    assert_eq!(rollout.begin(at(0), NEXT), Err(BeginError::Busy));
    let broken = Behaviour {
        failing: 1.0,
        ..GOOD
    };
    serve(&mut rollout, GOOD, broken, &mut random, 0);
    assert_eq!(rollout.begin(at(9), NEW), Err(BeginError::RolledBack));
    assert_eq!(rollout.begin(at(9), OLD), Err(BeginError::Current));
    assert_eq!(rollout.begin(at(9), NEXT), Ok(()));

    // It is remembered across restarts by who starts the next one with it.
    let mut again = Rollout::new(policy(0.1), OLD, rollout.refused());
    assert_eq!(again.begin(at(0), NEW), Err(BeginError::RolledBack));
}

#[derive(Clone, Debug)]
enum Step {
    Begin(u8),
    Serve,
    Ran { version: u8, ran: Ran },
    Tick,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let service = (0..10_000_u64).prop_map(Duration::from_micros);
    let ran = prop_oneof![
        6 => service.clone().prop_map(|service| Ran::Answered { service }),
        1 => Just(Ran::Failed),
        1 => service.prop_map(|service| Ran::GivenUp { service }),
    ];
    let step = prop_oneof![
        1 => (1..6_u8).prop_map(Step::Begin),
        8 => Just(Step::Serve),
        8 => (0..6_u8, ran).prop_map(|(version, ran)| Step::Ran { version, ran }),
        2 => Just(Step::Tick),
        2 => (0..400_000_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..600)
}

/// Plays the steps, checks every answer, and gives all of them back.
fn play(share: f64, steps: &[Step]) -> Vec<String> {
    let mut rollout = Rollout::new(policy(share), Digest([0; 32]), []);
    let mut answers = Vec::new();
    let mut now = 0;
    let mut stage = rollout.stage();
    let (mut served, mut shared) = (0_u64, 0_u64);
    let mut gone = Vec::new();
    for step in steps {
        let before = (rollout.current(), rollout.stage());
        let turn = match step {
            Step::Begin(version) => {
                let new = Digest([*version; 32]);
                let begun = rollout.begin(at(now), new);
                assert!(begun.is_err() || !gone.contains(&new), "{new} came again");
                assert!(begun.is_err() || before.1 == Stage::Stable);
                answers.push(format!("{begun:?}"));
                None
            }
            Step::Serve => {
                let version = rollout.pick();
                served += 1;
                if version != rollout.current() {
                    shared += 1;
                    let beside = match rollout.stage() {
                        Stage::Stable => panic!("{version} serves in a stable rollout"),
                        Stage::Canary { new } => new,
                        Stage::Watch { old } => old,
                    };
                    assert_eq!(version, beside);
                }
                assert!(shared as f64 <= served as f64 * rollout.share() + 1.0);
                answers.push(format!("{version}"));
                None
            }
            Step::Ran { version, ran } => rollout.ran(at(now), Digest([*version; 32]), *ran),
            Step::Tick => rollout.tick(at(now)),
            Step::Wait(ms) => {
                now += ms;
                None
            }
        };
        match (turn, before.1) {
            (None, _) => {}
            (Some(Turn::Promoted { new, .. }), Stage::Canary { new: begun }) => {
                assert_eq!((new, rollout.current()), (begun, begun));
                assert_eq!(rollout.stage(), Stage::Watch { old: before.0 });
            }
            (Some(Turn::Settled { old }), Stage::Watch { old: kept }) => {
                assert_eq!((old, rollout.stage()), (kept, Stage::Stable));
            }
            (Some(Turn::RolledBack { new, .. }), Stage::Canary { new: begun }) => {
                assert_eq!((new, rollout.current()), (begun, before.0));
                gone.push(new);
            }
            (Some(Turn::RolledBack { new, .. }), Stage::Watch { old }) => {
                assert_eq!((new, rollout.current()), (before.0, old));
                gone.push(new);
            }
            (turn, stage) => panic!("{turn:?} in {stage:?}"),
        }
        if rollout.stage() != stage {
            stage = rollout.stage();
            (served, shared) = (0, 0);
        }
        answers.push(format!("{turn:?}"));
    }
    // Whatever happened, time ends it.
    let mut turns = 0;
    while rollout.stage() != Stage::Stable {
        now += 1_000_000;
        assert!(rollout.tick(at(now)).is_some() && turns < 2);
        turns += 1;
    }
    answers
}

proptest! {
    #[test]
    fn every_sequence_keeps_the_share_ends_and_replays(
        share in SHARE_MIN..SHARE_MAX,
        steps in steps(),
    ) {
        prop_assert_eq!(play(share, &steps), play(share, &steps));
    }

    #[test]
    fn the_share_is_neither_passed_nor_missed(share in SHARE_MIN..=SHARE_MAX, version in 4..255_u8) {
        let mut rollout = Rollout::new(policy(share), OLD, []);
        let new = Digest([version; 32]);
        rollout.begin(at(0), new).unwrap();
        let mut own = 0.0;
        for served in 1..5000_u32 {
            own += f64::from(u8::from(rollout.pick() == new));
            let wanted = f64::from(served) * share;
            prop_assert!((wanted - 2.0..=wanted + 1.0).contains(&own), "{} of {}", own, served);
        }
    }
}

//! Control behaviour: scenario files, and the ranges their runs stay in.
//!
//! Each file in `scenarios/` says what arrives, what the device and the relays are like, and what
//! is expected. A name under `[expect]` is a field of the report, or one of those that `observed` adds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tidegate_control::scale::ScalePolicy;
use tidegate_control::simulate::{
    Random, Report, Run, ServiceTime, Setup, Shape, poisson, simulate,
};
use tidegate_control::{Foresight, Mode, Policy, Time};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Scenario {
    arrivals: Vec<(f64, f64)>,
    shape: String,
    seed: u64,
    slots: usize,
    slo_ms: u64,
    service_ms: u64,
    slowdowns: Vec<(f64, f64)>,
    relays: Relays,
    expect: BTreeMap<String, (f64, f64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Relays {
    min: usize,
    max: usize,
    start_up_ms: u64,
    service_ms: u64,
    round_trip_ms: u64,
    deaths_s: Vec<f64>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            arrivals: vec![],
            shape: "steps".into(),
            seed: 7,
            slots: 1,
            slo_ms: 250,
            service_ms: 25,
            slowdowns: vec![],
            relays: Relays::default(),
            expect: BTreeMap::new(),
        }
    }
}

impl Default for Relays {
    fn default() -> Self {
        Self {
            min: 0,
            max: 2,
            start_up_ms: 2000,
            service_ms: 25,
            round_trip_ms: 2,
            deaths_s: vec![],
        }
    }
}

impl Scenario {
    fn load(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("scenarios/{name}.toml"));
        let text = std::fs::read_to_string(&path).expect("the scenario is there");
        toml::from_str(&text).unwrap_or_else(|err| panic!("{}: {err}", path.display()))
    }

    fn arrivals(&self, seed: u64) -> Vec<Time> {
        let shape = match self.shape.as_str() {
            "steps" => Shape::Steps,
            "lines" => Shape::Lines,
            other => panic!("unknown shape {other:?}"),
        };
        poisson(&self.arrivals, shape, &mut Random::new(seed))
    }

    fn run(&self, foresight: Foresight, seed: u64) -> Run {
        let policy = Policy::new(foresight, self.slots, Duration::from_millis(self.slo_ms));
        let scale = ScalePolicy::new(self.relays.min, self.relays.max, 1);
        let service = Duration::from_millis(self.service_ms);
        let start_up = Duration::from_millis(self.relays.start_up_ms);
        let mut setup = Setup::new(policy, service, scale, start_up);
        let time = |seconds: f64| Time(Duration::from_secs_f64(seconds));
        setup.device.slowdowns = self
            .slowdowns
            .iter()
            .map(|(at, by)| (time(*at), *by))
            .collect();
        setup.fleet.service = ServiceTime {
            mean: Duration::from_millis(self.relays.service_ms),
            ..setup.fleet.service
        };
        setup.fleet.round_trip = Duration::from_millis(self.relays.round_trip_ms);
        setup.fleet.deaths = self.relays.deaths_s.iter().map(|at| time(*at)).collect();
        setup.seed = seed;
        simulate(&setup, &self.arrivals(seed))
    }
}

fn observed(run: &Run) -> BTreeMap<String, f64> {
    let report = serde_json::to_value(&run.report).expect("a report is plain numbers");
    let fields = report.as_object().expect("a report is an object").iter();
    let mut observed: BTreeMap<String, f64> = fields
        .map(|(name, value)| (name.replace('_', "-"), value.as_f64().expect("a number")))
        .collect();
    let bursting = |at: usize| run.moments[at].plan.mode == Mode::Bursting;
    let second = |index: Option<usize>| {
        index.map_or(f64::INFINITY, |index| run.moments[index].at.0.as_secs_f64())
    };
    let count = run.moments.len();
    let last = run.moments.last().expect("a scenario lasts a tick");
    observed.insert(
        "burst-begins-s".into(),
        second((0..count).find(|at| bursting(*at))),
    );
    let ends = (1..count)
        .rev()
        .find(|at| bursting(at - 1) && !bursting(*at));
    observed.insert("burst-ends-s".into(), second(ends));
    observed.insert("relays-end".into(), last.relays_ready as f64);
    observed.insert("capacity-rps-end".into(), last.plan.capacity_rps);
    let refused = run.report.refused as f64 / run.report.requests as f64;
    observed.insert("refused-share".into(), refused);
    observed
}

fn conserves(report: &Report) -> bool {
    report.answered + report.refused == report.requests && report.lost == 0
}

#[track_caller]
fn check(name: &str) {
    let scenario = Scenario::load(name);
    let run = scenario.run(Foresight::Predictive, scenario.seed);
    assert!(conserves(&run.report), "{:?}", run.report);
    let observed = observed(&run);
    let outside = scenario.expect.iter().filter(|(what, (low, high))| {
        let value = observed
            .get(*what)
            .unwrap_or_else(|| panic!("{name}: nothing is called {what}"));
        !(*low..=*high).contains(value)
    });
    let outside: Vec<_> = outside
        .map(|(what, range)| (what, observed[what], range))
        .collect();
    assert!(
        outside.is_empty(),
        "{name}: outside: {outside:?}; observed: {observed:#?}"
    );
    assert!(!scenario.expect.is_empty(), "{name} expects nothing");
}

macro_rules! scenarios {
    ($($test:ident = $file:literal),* $(,)?) => {
        $(#[test] fn $test() { check($file) })*

        #[test]
        fn every_file_is_run() {
            let named: BTreeSet<String> = [$($file),*].into_iter().map(String::from).collect();
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
            let files = std::fs::read_dir(folder).expect("the folder is there");
            let stem = |path: &Path| path.file_stem().expect("a file").to_string_lossy().into_owned();
            let there: BTreeSet<String> = files.map(|file| stem(&file.expect("readable").path())).collect();
            assert_eq!(there, named);
        }
    };
}

scenarios! {
    steady = "steady",
    ramp = "ramp",
    flash_crowd = "flash-crowd",
    sawtooth = "sawtooth",
    relay_dies = "relay-dies",
    every_relay_dies = "every-relay-dies",
    no_relay = "no-relay",
    slow_relay = "slow-relay",
    far_relay = "far-relay",
    service_time_jump = "service-time-jump",
    near_threshold = "near-threshold",
    cold_start = "cold-start",
    four_slots = "four-slots",
}

/// Means over seeds of SLO attainment and relay-seconds.
fn means(scenario: &Scenario, foresight: impl Fn(Vec<Time>) -> Foresight) -> (f64, f64) {
    const SEEDS: u64 = 10;
    let sum = (0..SEEDS).map(|seed| {
        let report = scenario
            .run(foresight(scenario.arrivals(seed)), seed)
            .report;
        (report.slo_attainment, report.relay_seconds)
    });
    let (slo, cost) = sum.fold((0.0, 0.0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
    (slo / SEEDS as f64, cost / SEEDS as f64)
}

#[test]
fn foresight_orders_the_policies() {
    for name in ["ramp", "sawtooth"] {
        let scenario = Scenario::load(name);
        let local = means(&scenario, |_| Foresight::LocalOnly);
        let reactive = means(&scenario, |_| Foresight::Reactive);
        let predictive = means(&scenario, |_| Foresight::Predictive);
        let oracle = means(&scenario, Foresight::Oracle);
        println!(
            "{name}: local {local:?} reactive {reactive:?} predictive {predictive:?} oracle {oracle:?}"
        );
        assert!(local.0 < 0.9 && local.1 == 0.0, "{name}: {local:?}");
        assert!(
            predictive.0 >= reactive.0 - 0.0005,
            "{name}: {predictive:?} {reactive:?}"
        );
        assert!(predictive.0 >= 0.995, "{name}: {predictive:?}");
        assert!(
            predictive.1 <= 1.1 * reactive.1,
            "{name}: {predictive:?} {reactive:?}"
        );
        assert!(
            oracle.0 >= predictive.0 - 0.001,
            "{name}: {oracle:?} {predictive:?}"
        );
    }
}

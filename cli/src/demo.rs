//! Shows the whole on one machine: a small device, real arrivals, and relays that take the excess.
//!
//! The same arrivals are replayed four times: with the device alone, with relays bought when the
//! load is already there, with relays bought on a forecast, and with a perfect forecast. Nothing is
//! simulated: agent, relays and clients are processes and sockets on loopback.

mod load;
mod page;
mod report;
mod stage;
mod trace;
mod view;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};

use self::page::page;
use self::report::{Machine, Report, table};
use self::stage::{Policy, Stage};
use self::trace::Trace;
use self::view::{View, say};
use crate::span;

/// Share of the requests that arrives above what the device can carry: enough that it cannot keep
/// its SLO alone, and little enough that two cores can carry device and relays together.
const EXCESS: f64 = 0.16;

/// Bounds of `--duration`: long enough for a forecast to learn, short enough to wait for.
const DURATION_MIN: Duration = Duration::from_secs(5);
const DURATION_MAX: Duration = Duration::from_secs(3600);

/// Bounds of `--slo`: the agent's own.
const SLO_MIN: Duration = Duration::from_millis(1);
const SLO_MAX: Duration = Duration::from_secs(60);

/// Requests that measure the service time: two seconds on a small device.
const CALIBRATION: u32 = 60;

/// The policies, in the order of the table; the key is that of the agent's configuration.
const POLICIES: [Policy; 4] = [
    Policy {
        name: "local-only",
        key: "off",
    },
    Policy {
        name: "reactive",
        key: "reactive",
    },
    Policy {
        name: "predictive",
        key: "predictive",
    },
    Policy {
        name: "oracle",
        key: "oracle",
    },
];

/// What the senders show the face detector; see `modules/face/images`.
const IMAGES: [&[u8]; 2] = [
    include_bytes!("../../modules/face/images/astronaut.jpg"),
    include_bytes!("../../modules/face/images/coffee.jpg"),
];

/// Show the whole on one machine: a small device under a real load, with and without relays.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long the arrivals last, for each of the four policies.
    #[arg(long, value_name = "SPAN", default_value = "35s", value_parser = span::seconds)]
    duration: Duration,
    /// CSV of arrival times, or of times and counts [default: the Azure LLM inference trace].
    #[arg(long, value_name = "FILE.csv")]
    trace: Option<PathBuf>,
    /// Time within which a request should be answered.
    #[arg(long, value_name = "SPAN", default_value = "250ms", value_parser = span::milliseconds)]
    slo: Duration,
    /// Time before a relay's process starts, as a cloud takes to find it a machine.
    #[arg(long, value_name = "SPAN", default_value = "1s", value_parser = span::milliseconds)]
    relay_delay: Duration,
    /// Most relays.
    #[arg(long, value_name = "N", default_value_t = 2)]
    relays_max: usize,
    /// Seed of every random choice.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The face module [default: modules/face.wasm beside the build].
    #[arg(long, value_name = "FILE.wasm")]
    module: Option<PathBuf>,
    /// Folder for the report; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "demo-report")]
    out: PathBuf,
}

/// Runs the demo and writes `report.json` and `index.html`. A signal ends it, and every process with it.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        ended = perform(args) => ended,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    }
}

async fn perform(args: Args) -> anyhow::Result<ExitCode> {
    ensure!(
        (DURATION_MIN..=DURATION_MAX).contains(&args.duration),
        "--duration is {DURATION_MIN:?} to {DURATION_MAX:?}"
    );
    ensure!(
        (SLO_MIN..=SLO_MAX).contains(&args.slo),
        "--slo is {SLO_MIN:?} to {SLO_MAX:?}"
    );
    ensure!(
        (1..=16).contains(&args.relays_max),
        "--relays-max is 1 to 16"
    );
    let trace = args
        .trace
        .as_deref()
        .map_or_else(Trace::azure, Trace::read)?;
    let folder = tempfile::tempdir()?;
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the folder {}", args.out.display()))?;
    let stage = Stage {
        module: module(args.module.as_deref())?,
        images: IMAGES.to_vec(),
        slo: args.slo,
        relay_delay: args.relay_delay,
        relays_max: args.relays_max,
        folder: folder.path().to_owned(),
    };
    stage.prepare()?;
    let service = stage.service_time(CALIBRATION).await?;
    let arrivals = trace.arrivals(
        args.duration,
        1.0 / service.as_secs_f64(),
        EXCESS,
        args.seed,
    )?;
    say(&format!(
        "One slot, {:.1} ms of service a request; {} arrivals of {} in {:?}, {:.0} % above what the device carries.",
        service.as_secs_f64() * 1e3,
        arrivals.len(),
        trace.name,
        args.duration,
        EXCESS * 100.0,
    ));
    let (mut rows, mut courses) = (Vec::new(), Vec::new());
    for policy in POLICIES {
        let mut view = View::new();
        let (row, course) = stage
            .perform(policy, &arrivals, &mut view)
            .await
            .with_context(|| format!("policy {}", policy.name))?;
        drop(view);
        rows.push(row);
        courses.push(course);
    }
    let report = Report {
        machine: Machine::this(),
        trace: trace.name,
        seed: args.seed,
        duration_s: args.duration.as_secs_f64(),
        service_ms: service.as_secs_f64() * 1e3,
        relay_delay_ms: stage.relay_delay.as_secs_f64() * 1e3,
        slo_ms: stage.slo.as_secs_f64() * 1e3,
        policies: rows,
    };
    let json = serde_json::to_vec_pretty(&report)?;
    tidegate_store::write_whole(&args.out.join("report.json"), &json)?;
    tidegate_store::write_whole(
        &args.out.join("index.html"),
        page(&report, &courses).as_bytes(),
    )?;
    say(&format!("\n{}", table(&report)));
    say(&format!(
        "report.json and index.html are in {}",
        args.out.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// The face module: the one asked for, else the one that `cargo xtask modules` left beside the build.
fn module(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = asked {
        return path
            .canonicalize()
            .with_context(|| format!("no module at {}", path.display()));
    }
    let program = std::env::current_exe()?;
    // target/PROFILE/tidegate stands two levels below target/modules.
    let built = program
        .ancestors()
        .nth(2)
        .map(|target| target.join("modules/face.wasm"));
    match built {
        Some(path) if path.is_file() => Ok(path),
        _ => bail!(
            "the face module is not built: run `cargo xtask modules`, or name it with --module"
        ),
    }
}

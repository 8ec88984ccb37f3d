//! Runs as many relays on this machine as the agents will need.
//!
//! The stand-in for a cloud's autoscaler, and the one that works out of the box: it reads what the
//! agents announce, lets `control` decide how many relays that takes, starts and stops `tidegate
//! relay` processes, and lists the ready ones in a file that the agents watch.
//!
//! No relay outlives its scaler: stopping drains them, dropping kills them, and each relay ends by
//! itself when the pipe to its scaler closes.

mod agents;
mod fleet;
mod relay_process;
mod template;

use std::io::{self, IsTerminal as _, Write as _};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_control::scale::{Demand, ScalePolicy};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::http::ServerUrl;
use crate::span;
pub(crate) use template::{RelayTemplate, TemplateError, Unsigned};

/// Most agents polled, so that one round of polls fits its period.
pub(crate) const AGENTS_MAX: usize = 64;

/// Most relays on one machine.
pub(crate) const RELAYS_MAX: usize = 64;

/// Run relays on this machine, as many as the agents announce that they will need.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Agents to serve, as http://HOST:PORT, separated by commas.
    #[arg(long, value_name = "URL,...", required = true, value_delimiter = ',')]
    agents: Vec<ServerUrl>,
    /// File to list the ready relays in; the agents name it as `relays-file`.
    #[arg(long, value_name = "FILE")]
    relays_file: PathBuf,
    /// Fewest relays.
    #[arg(long, value_name = "N", default_value_t = 0)]
    min: usize,
    /// Most relays.
    #[arg(long, value_name = "N", default_value_t = 4)]
    max: usize,
    /// Configuration that every relay shares; its `listen` and `name` are set for each.
    #[arg(long, value_name = "FILE.toml")]
    relay_config: Option<PathBuf>,
    /// Folder that `tidegate dev-certs` filled [default: what --relay-config says, else certs].
    #[arg(long, value_name = "DIR")]
    certs: Option<PathBuf>,
    /// Requests that one relay runs at once [default: what --relay-config says, else 1].
    #[arg(long, value_name = "N")]
    relay_slots: Option<NonZeroUsize>,
    /// Let the relays run modules that nobody signed [default: what --relay-config says, else not].
    #[arg(long)]
    allow_unsigned: bool,
    /// How long demand must stay low before a relay is stopped.
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = span::seconds)]
    dwell: Duration,
    /// Time before a relay's process starts, as a cloud takes to find it a machine.
    #[arg(long, value_name = "SPAN", default_value = "0ms", value_parser = span::milliseconds)]
    relay_delay: Duration,
}

/// Why relays could not be scaled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScaleError {
    /// The floor is above the ceiling, or a number is above its limit.
    #[error("{0}")]
    Limits(String),
    /// The relays' configuration cannot be used.
    #[error("cannot use the relays' configuration")]
    Template(#[source] TemplateError),
    /// The path of this program is unknown, so it cannot be started again as a relay.
    #[error("cannot find this program's own path")]
    Program(#[source] io::Error),
    /// No folder for the relays' configurations.
    #[error("cannot make a temporary folder")]
    Folder(#[source] io::Error),
    /// The list of relays cannot be written.
    #[error("cannot write the list of relays {}", path.display())]
    RelaysFile {
        /// The list.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signal(#[source] io::Error),
    /// The summary cannot be written.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
}

impl ScaleError {
    /// Whether the caller can mend it by other arguments or files.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Limits(_) | Self::Template(_) => true,
            Self::Program(_)
            | Self::Folder(_)
            | Self::RelaysFile { .. }
            | Self::Signal(_)
            | Self::Print(_) => false,
        }
    }
}

/// Scales until SIGINT or SIGTERM, then drains every relay and prints what was used.
pub(crate) async fn run(args: Args) -> Result<(), ScaleError> {
    log_to_stderr();
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ScaleError::Signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ScaleError::Signal)?;
    let scaler = LocalScaler::start(config(args)?)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let used = scaler.stop().await;
    writeln!(
        io::stdout(),
        "relay-seconds {:.1}, most relays at once {}, started {}, crashed {}",
        used.relay_seconds,
        used.running_max,
        used.started_total,
        used.crashed_total
    )
    .map_err(ScaleError::Print)
}

/// What the scaler does, beside what its relays log.
fn log_to_stderr() {
    let log = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // Fails only where there is a log already, which then is the one to use.
    let _ = log.try_init();
}

fn config(args: Args) -> Result<ScalerConfig, ScaleError> {
    let unsigned = match args.allow_unsigned {
        true => Unsigned::Allowed,
        false => Unsigned::AsWritten,
    };
    let relay = RelayTemplate::read(
        args.relay_config.as_deref(),
        args.certs.as_deref(),
        args.relay_slots,
        unsigned,
    )
    .map_err(ScaleError::Template)?;
    Ok(ScalerConfig {
        agents: args.agents,
        relays_file: args.relays_file,
        policy: ScalePolicy {
            dwell: args.dwell,
            ..ScalePolicy::new(args.min, args.max, relay.slots())
        },
        relay,
        program: std::env::current_exe().map_err(ScaleError::Program)?,
        relay_delay: args.relay_delay,
        log_folder: None,
    })
}

/// What to run, for whom, and within which bounds.
#[derive(Clone, Debug)]
pub(crate) struct ScalerConfig {
    /// The agents whose demand counts: 1 to [`AGENTS_MAX`].
    pub(crate) agents: Vec<ServerUrl>,
    /// Where the ready relays are listed, one `HOST:PORT` a line; replaced as a whole.
    pub(crate) relays_file: PathBuf,
    /// How demand becomes a number of relays. Its ceiling is at most [`RELAYS_MAX`].
    pub(crate) policy: ScalePolicy,
    /// The configuration that every relay shares.
    pub(crate) relay: RelayTemplate,
    /// The `tidegate` program.
    pub(crate) program: PathBuf,
    /// How long each start waits first, as a cloud that must find a machine does. The wait costs no
    /// relay-seconds.
    pub(crate) relay_delay: Duration,
    /// Folder for `relay-N.log`; `None` passes the relays' standard error on.
    pub(crate) log_folder: Option<PathBuf>,
}

/// What a scaler has seen and done until now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Observed {
    /// What the agents announce, in relay slots.
    pub(crate) demand: Demand,
    /// Relays wanted.
    pub(crate) desired: usize,
    /// Relays that wait for their start, or have not said yet that they listen.
    pub(crate) starting: usize,
    /// Relays that agents are told of.
    pub(crate) ready: usize,
    /// Relays that finish what they have.
    pub(crate) draining: usize,
    /// Most processes alive at once.
    pub(crate) running_max: usize,
    /// Processes started.
    pub(crate) started_total: u64,
    /// Processes that ended without being asked, or never got ready.
    pub(crate) crashed_total: u64,
    /// Seconds from the start of each process to its end, or to now, together.
    pub(crate) relay_seconds: f64,
}

/// A running scaler. Dropping it kills every relay at once; [`Self::stop`] drains them first.
#[derive(Debug)]
pub(crate) struct LocalScaler {
    stop: CancellationToken,
    observed: watch::Receiver<Observed>,
    task: AbortOnDropHandle<()>,
}

impl LocalScaler {
    /// Empties the list of relays and begins to scale. Must be called on a tokio runtime.
    pub(crate) fn start(config: ScalerConfig) -> Result<Self, ScaleError> {
        let ScalePolicy {
            min,
            max,
            relay_slots,
            ..
        } = config.policy;
        let agents = config.agents.len();
        if min > max || max > RELAYS_MAX || relay_slots == 0 {
            return Err(ScaleError::Limits(format!(
                "the fewest relays ({min}) may not be above the most ({max}), nor those above {RELAYS_MAX}"
            )));
        }
        if agents == 0 || agents > AGENTS_MAX {
            return Err(ScaleError::Limits(format!(
                "expected 1 to {AGENTS_MAX} agents, got {agents}"
            )));
        }
        let stop = CancellationToken::new();
        let (report, observed) = watch::channel(Observed::default());
        let fleet = fleet::Fleet::new(config, report)?;
        let task = AbortOnDropHandle::new(tokio::spawn(fleet.run(stop.clone())));
        Ok(Self {
            stop,
            observed,
            task,
        })
    }

    /// What was seen and done, at most one tick ago.
    pub(crate) fn observed(&self) -> Observed {
        *self.observed.borrow()
    }

    /// Drains every relay, kills those that do not end in time, and empties the list.
    pub(crate) async fn stop(self) -> Observed {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the scaler failed");
        }
        *self.observed.borrow()
    }
}

//! One relay process, from the wait before its start to its end.
//!
//! The relay reads its configuration from a file of its own, says on its standard output where it
//! listens, and is told to drain by SIGTERM. The pipe to its standard input carries nothing: the
//! relay ends when the pipe closes, so it cannot outlive this process, however that ends.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::child;

/// Longest wait until a relay listens: preloaded modules compile before that.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(30);

/// How much longer than it may drain a relay is left alone before it is killed.
const DRAIN_SLACK: Duration = Duration::from_secs(5);

/// How the ready line begins; an address follows.
const READY: &str = "tidegate-relay listening on ";

/// Longest ready line that is read.
const READY_BYTES_MAX: u64 = 256;

/// How one relay is started.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    /// The number that names the relay in events, files and logs. Never used again.
    pub(super) id: u64,
    /// The `tidegate` program.
    pub(super) program: PathBuf,
    /// The relay's configuration.
    pub(super) config: String,
    /// Folder that the configuration is written to.
    pub(super) folder: PathBuf,
    /// Folder for the log; `None` passes standard error on.
    pub(super) log_folder: Option<PathBuf>,
    /// How long to wait first.
    pub(super) delay: Duration,
    /// How long it may drain.
    pub(super) drain: Duration,
}

/// What became of a relay meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The process was started.
    Started(u64),
    /// It listens at this address.
    Ready(u64, SocketAddr),
}

/// How a relay ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// The relay's number.
    pub(super) id: u64,
    /// From the start of the process to its end; zero if it was never started.
    pub(super) ran: Duration,
    /// Why it ended, where it was not asked to.
    pub(super) crash: Option<Crash>,
}

/// Why a relay ended that should not have.
#[derive(Debug, thiserror::Error)]
pub(super) enum Crash {
    #[error("cannot write its configuration")]
    Config(#[source] io::Error),
    #[error("cannot open its log")]
    Log(#[source] io::Error),
    #[error("cannot start {}", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("cannot read its standard output")]
    Output(#[source] io::Error),
    #[error("expected \"{READY}ADDRESS\" on its standard output, got {0:?}")]
    Line(String),
    #[error("it did not listen within {READY_WITHIN:?}")]
    NotReady,
    #[error("it ended with {0}")]
    Exit(ExitStatus),
    #[error("cannot wait for it")]
    Wait(#[source] io::Error),
}

/// Runs a relay until it ends, or until `stop` asks it to.
pub(super) async fn supervise(
    launch: Launch,
    stop: CancellationToken,
    events: mpsc::Sender<Event>,
) -> Ended {
    let id = launch.id;
    let ended = |ran, crash| Ended { id, ran, crash };
    if stop
        .run_until_cancelled(sleep(launch.delay))
        .await
        .is_none()
    {
        return ended(Duration::ZERO, None);
    }
    let mut child = match start(&launch).await {
        Ok(child) => child,
        Err(crash) => return ended(Duration::ZERO, Some(crash)),
    };
    let started = Instant::now();
    // Waiting for a process closes its standard input, unless somebody else holds it.
    let _input = child.stdin.take();
    let output = child.stdout.take().expect("standard output was asked for");
    let life = async {
        // A fleet that is gone has no use for events; `stop` or a drop ends this relay then.
        let _ = events.send(Event::Started(id)).await;
        let mut output = BufReader::new(output);
        let address = timeout(READY_WITHIN, ready_address(&mut output)).await;
        let address = address.map_err(|_| Crash::NotReady)??;
        let _ = events.send(Event::Ready(id, address)).await;
        // Whatever else it prints must not fill the pipe.
        let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
        std::future::pending::<Result<(), Crash>>().await
    };
    let crash = tokio::select! {
        biased;
        () = stop.cancelled() => {
            drain(&mut child, &launch).await;
            None
        }
        status = child.wait() => Some(status.map_or_else(Crash::Wait, Crash::Exit)),
        failed = life => failed.err(),
    };
    // A process that was waited for has no number any more.
    if child.id().is_some()
        && let Err(error) = child.kill().await
    {
        tracing::error!(relay = id, %error, "cannot kill a relay");
    }
    ended(started.elapsed(), crash)
}

async fn start(launch: &Launch) -> Result<Child, Crash> {
    let config = launch.folder.join(format!("relay-{}.toml", launch.id));
    tokio::fs::write(&config, &launch.config)
        .await
        .map_err(Crash::Config)?;
    let log = match &launch.log_folder {
        Some(folder) => open_log(folder, launch.id).map_err(Crash::Log)?,
        None => Stdio::inherit(),
    };
    Command::new(&launch.program)
        .arg("relay")
        .arg("--until-stdin-closes")
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        // An interrupt from the terminal is for the scaler, which then drains the relays.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| Crash::Start {
            program: launch.program.clone(),
            source,
        })
}

fn open_log(folder: &Path, id: u64) -> io::Result<Stdio> {
    let path = folder.join(format!("relay-{id}.log"));
    Ok(std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?
        .into())
}

/// Reads the ready line, and nothing after it.
async fn ready_address(output: &mut BufReader<ChildStdout>) -> Result<SocketAddr, Crash> {
    let mut line = String::new();
    let mut bounded = output.take(READY_BYTES_MAX);
    bounded.read_line(&mut line).await.map_err(Crash::Output)?;
    let address = line
        .strip_prefix(READY)
        .and_then(|text| text.trim_end().parse().ok());
    match address {
        Some(address) => Ok(address),
        // Standard output that ends is a process that ends: its status says more.
        None if line.is_empty() => std::future::pending().await,
        None => Err(Crash::Line(line)),
    }
}

/// Asks the process to drain, and waits until it has or its time is over.
async fn drain(child: &mut Child, launch: &Launch) {
    let id = launch.id;
    if let Err(error) = child::terminate(child) {
        tracing::warn!(relay = id, %error, "cannot ask a relay to drain");
        return;
    }
    match timeout(launch.drain + DRAIN_SLACK, child.wait()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(relay = id, %error, "cannot wait for a relay"),
        Err(_) => tracing::warn!(relay = id, "a relay did not drain in time and is killed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program that does what its configuration, a shell script, says.
    fn launch(folder: &Path, script: &str) -> Launch {
        Launch {
            id: 7,
            program: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/run-config.sh"),
            config: script.to_owned(),
            folder: folder.to_owned(),
            log_folder: Some(folder.to_owned()),
            delay: Duration::ZERO,
            drain: Duration::ZERO,
        }
    }

    async fn crash(script: &str) -> Crash {
        let folder = tempfile::tempdir().unwrap();
        let (events, _kept) = mpsc::channel(9);
        let ended = supervise(
            launch(folder.path(), script),
            CancellationToken::new(),
            events,
        )
        .await;
        ended.crash.expect("the relay crashed")
    }

    #[tokio::test]
    async fn a_relay_that_never_listens_is_a_crash() {
        assert!(matches!(crash("exit 3").await, Crash::Exit(status) if status.code() == Some(3)));
        assert!(
            matches!(crash("kill -9 $$").await, Crash::Exit(status) if status.code().is_none())
        );
        for line in [
            "hello",
            "tidegate-relay listening on nowhere",
            "tidegate-relay listening on",
        ] {
            let crash = crash(&format!("echo {line}; exec sleep 600")).await;
            assert!(
                matches!(&crash, Crash::Line(got) if got.trim_end() == line),
                "{crash}"
            );
        }
        let crash = crash("while :; do printf aaaaaaaaaaaaaaaa; done").await;
        assert!(
            matches!(&crash, Crash::Line(got) if got.len() as u64 == READY_BYTES_MAX),
            "{crash}"
        );
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let mut launch = launch(folder.path(), "");
        launch.program = folder.path().join("none");
        let (events, mut seen) = mpsc::channel(9);
        let ended = supervise(launch, CancellationToken::new(), events).await;
        assert!(
            matches!(ended.crash, Some(Crash::Start { .. })),
            "{ended:?}"
        );
        assert_eq!(ended.ran, Duration::ZERO);
        assert!(seen.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_relay_is_asked_to_drain_and_does() {
        let folder = tempfile::tempdir().unwrap();
        let script = "trap 'echo drained >&2; exit 0' TERM
            echo tidegate-relay listening on 127.0.0.1:4433
            while :; do sleep 0.05; done";
        let (events, mut seen) = mpsc::channel(9);
        let stop = CancellationToken::new();
        let running = tokio::spawn(supervise(
            launch(folder.path(), script),
            stop.clone(),
            events,
        ));
        assert!(matches!(seen.recv().await, Some(Event::Started(7))));
        let Some(Event::Ready(7, address)) = seen.recv().await else {
            panic!("the relay is not ready");
        };
        assert_eq!(address.port(), 4433);
        stop.cancel();
        let ended = running.await.unwrap();
        assert!(ended.crash.is_none(), "{ended:?}");
        assert!(ended.ran > Duration::ZERO);
        let log = std::fs::read_to_string(folder.path().join("relay-7.log")).unwrap();
        assert_eq!(log, "drained\n");
    }

    #[tokio::test]
    async fn a_relay_that_is_not_needed_any_more_never_starts() {
        let folder = tempfile::tempdir().unwrap();
        let mut launch = launch(folder.path(), "exit 3");
        launch.delay = Duration::from_secs(3600);
        let (events, mut seen) = mpsc::channel(9);
        let stop = CancellationToken::new();
        stop.cancel();
        let ended = supervise(launch, stop, events).await;
        assert!(ended.crash.is_none() && ended.ran.is_zero(), "{ended:?}");
        assert!(seen.recv().await.is_none());
    }
}

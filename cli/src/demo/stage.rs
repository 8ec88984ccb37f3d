//! One policy on stage: a fresh agent, fresh relays, the same arrivals.
//!
//! Every process is a real one, started as a user would start it, with certificates of its own. All of
//! them end with the run, whatever became of it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tidegate_control::scale::ScalePolicy;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::load::{Outcome, Records, Sender, replay};
use super::page::Course;
use super::report::{RelayUse, Row, latencies, percentile_ms};
use super::view::{Sample, View};
use crate::child;
use crate::http::{Client, ServerUrl};
use crate::metrics_page::sum_of;
use crate::scale::{LocalScaler, RelayTemplate, ScalerConfig, Unsigned};

/// Longest wait for an agent that compiles its module.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Longest wait for an agent that drains.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// How long demand stays low before a relay stops: shorter than elsewhere, as the demo is short.
const SCALE_DWELL: Duration = Duration::from_secs(3);
/// From sample to sample of the live view.
const SAMPLE_PERIOD: Duration = Duration::from_millis(250);

/// Window of the arrival rate that the view shows.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// What every policy shares.
#[derive(Debug)]
pub(super) struct Stage {
    /// The packed face module.
    pub(super) module: PathBuf,
    /// Encoded images, sent in turn.
    pub(super) images: Vec<&'static [u8]>,
    /// An answer counts when it comes within this time.
    pub(super) slo: Duration,
    /// How long each relay waits before its process starts.
    pub(super) relay_delay: Duration,
    /// Most relays.
    pub(super) relays_max: usize,
    /// Where configurations, certificates and logs go.
    pub(super) folder: PathBuf,
}

/// How an agent chooses where a request runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// The name in the report.
    pub(super) name: &'static str,
    /// The value of the key `burst.policy`.
    pub(super) key: &'static str,
}

impl Stage {
    /// Certificates for all processes of the demo.
    pub(super) fn prepare(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        tidegate_identity::make_dev_certs(&self.certs())?;
        Ok(())
    }

    fn certs(&self) -> PathBuf {
        self.folder.join("certs")
    }

    /// Time of one request on a device with nothing else to do: the mean over `count` in a row.
    pub(super) async fn service_time(&self, count: u32) -> anyhow::Result<Duration> {
        let agent = self.start_agent("calibrate", "off", None).await?;
        let sender = Sender::new(agent.url.clone(), &self.images);
        let warm = self.images.len();
        let mut begin = Instant::now();
        for index in 0..warm + count as usize {
            if index == warm {
                begin = Instant::now();
            }
            let record = sender.send(index, Instant::now(), Duration::ZERO).await;
            if record.outcome != Outcome::Local {
                bail!("the agent did not answer a single request: {}", agent.log());
            }
        }
        let mean = begin.elapsed() / count;
        agent.stop().await?;
        Ok(mean)
    }

    /// Replays `arrivals` under `policy`, showing the run as it goes.
    pub(super) async fn perform(
        &self,
        policy: Policy,
        arrivals: &[Duration],
        view: &mut View,
    ) -> anyhow::Result<(Row, Course)> {
        let agent = self
            .start_agent(policy.name, policy.key, Some(arrivals))
            .await?;
        let scaler = match policy.key {
            "off" => None,
            _ => Some(self.start_scaler(policy, &agent)?),
        };
        let records: Records = Arc::new(Mutex::new(Vec::with_capacity(arrivals.len())));
        let sender = Sender::new(agent.url.clone(), &self.images);
        let mut samples = Vec::new();
        {
            let watch = self.watch(
                policy,
                &agent,
                scaler.as_ref(),
                arrivals,
                &records,
                view,
                &mut samples,
            );
            tokio::select! {
                () = replay(&sender, arrivals, &records) => {}
                () = watch => {}
            }
        }
        let page = agent.metrics().await?;
        let relays = match scaler {
            Some(scaler) => {
                let used = scaler.stop().await;
                RelayUse {
                    relay_seconds: used.relay_seconds,
                    relays_max: used.running_max,
                }
            }
            None => RelayUse::default(),
        };
        agent.stop().await?;
        let mut records =
            std::mem::take(&mut *records.lock().expect("no thread panics with the records"));
        records.sort_by_key(|record| record.arrival);
        let changes = sum_of(&page, "tidegate_mode_changes_total").unwrap_or(0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a small count"
        )]
        let row = Row::new(policy.name, &records, self.slo, relays, changes as u64);
        self.check_once(&page, &row)?;
        Ok((
            row,
            Course {
                name: policy.name,
                samples,
                records,
            },
        ))
    }

    /// Every request that was answered was answered once: the agent's count is the senders' count.
    fn check_once(&self, page: &str, row: &Row) -> anyhow::Result<()> {
        let counted = sum_of(page, "tidegate_requests_total").unwrap_or(0.0);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a count of requests is far below 2^52"
        )]
        let sent = (row.requests - row.lost) as f64;
        if row.lost == 0 && counted != sent {
            bail!(
                "{}: {sent} requests got a reply, but the agent counted {counted}",
                row.name
            );
        }
        Ok(())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what the view needs comes from every side"
    )]
    async fn watch(
        &self,
        policy: Policy,
        agent: &Agent,
        scaler: Option<&LocalScaler>,
        arrivals: &[Duration],
        records: &Records,
        view: &mut View,
        samples: &mut Vec<Sample>,
    ) {
        let start = Instant::now();
        let mut ticks = interval(SAMPLE_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let now = start.elapsed();
            let Ok(page) = agent.metrics().await else {
                continue;
            };
            let gauge = |name| sum_of(&page, name).unwrap_or(0.0);
            let recent = now.saturating_sub(RATE_WINDOW);
            let due = |time: Duration| arrivals.partition_point(|arrival| *arrival <= time);
            #[expect(
                clippy::cast_precision_loss,
                reason = "a count of requests is far below 2^52"
            )]
            let arrival_rps =
                (due(now) - due(recent)) as f64 / (now - recent).as_secs_f64().max(1e-3);
            let seen = records
                .lock()
                .expect("no thread panics with the records")
                .clone();
            let count = |outcome| {
                seen.iter()
                    .filter(|record| record.outcome == outcome)
                    .count()
            };
            let latencies = latencies(&seen);
            samples.push(Sample {
                time_s: now.as_secs_f64(),
                arrival_rps,
                forecast_rps: gauge("tidegate_forecast_upper_rps"),
                capacity_rps: gauge("tidegate_capacity_rps"),
                queued: gauge("tidegate_queue_length"),
                burst_share: gauge("tidegate_burst_share_ratio"),
                relays: scaler.map_or(0, |scaler| {
                    let seen = scaler.observed();
                    seen.starting + seen.ready + seen.draining
                }),
                counts: [
                    count(Outcome::Local),
                    count(Outcome::Relay),
                    count(Outcome::Refused),
                    count(Outcome::Lost),
                ],
                p50_ms: percentile_ms(&latencies, 0.5),
                p99_ms: percentile_ms(&latencies, 0.99),
            });
            view.show(policy.name, samples);
        }
    }

    fn start_scaler(&self, policy: Policy, agent: &Agent) -> anyhow::Result<LocalScaler> {
        let relay = RelayTemplate::read(None, Some(&self.certs()), None, Unsigned::Allowed)?;
        Ok(LocalScaler::start(ScalerConfig {
            agents: vec![agent.url.clone()],
            relays_file: self.relays_file(policy.name),
            policy: ScalePolicy {
                dwell: SCALE_DWELL,
                ..ScalePolicy::new(0, self.relays_max, relay.slots())
            },
            relay,
            program: std::env::current_exe()?,
            relay_delay: self.relay_delay,
            log_folder: Some(self.folder.clone()),
        })?)
    }

    fn relays_file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}-relays.txt"))
    }

    async fn start_agent(
        &self,
        name: &str,
        key: &str,
        arrivals: Option<&[Duration]>,
    ) -> anyhow::Result<Agent> {
        let relays_file = self.relays_file(name);
        std::fs::write(&relays_file, "")?;
        let arrivals_file = self.folder.join("arrivals.txt");
        let lines: Vec<String> = arrivals
            .unwrap_or_default()
            .iter()
            .map(|arrival| format!("{:.6}\n", arrival.as_secs_f64()))
            .collect();
        std::fs::write(&arrivals_file, lines.concat())?;
        let certs = self.certs();
        let mut burst = toml::Table::new();
        let mut set = |key: &str, value: String| burst.insert(key.to_owned(), value.into());
        set("policy", key.to_owned());
        set("relays-file", relays_file.display().to_string());
        set("certificate", certs.join("agent.pem").display().to_string());
        set("key", certs.join("agent.key").display().to_string());
        set("ca", certs.join("ca.pem").display().to_string());
        if key == "oracle" {
            set("arrivals-file", arrivals_file.display().to_string());
        }
        let mut config = toml::Table::new();
        config.insert("listen".into(), "127.0.0.1:0".into());
        config.insert(
            "modules".into(),
            vec![self.module.display().to_string()].into(),
        );
        // The module was made on this machine, by `cargo xtask demo` or whoever names it.
        let trust = toml::Table::from_iter([("allow-unsigned".to_owned(), true.into())]);
        config.insert("trust".into(), trust.into());
        config.insert("slots".into(), 1.into());
        config.insert("slo-ms".into(), i64::try_from(self.slo.as_millis())?.into());
        config.insert("burst".into(), burst.into());
        let path = self.folder.join(format!("{name}-agent.toml"));
        std::fs::write(&path, toml::to_string(&config)?)?;
        Agent::start(&path, self.folder.join(format!("{name}-agent.log"))).await
    }
}

/// A running agent process.
#[derive(Debug)]
struct Agent {
    child: Child,
    url: ServerUrl,
    client: Client,
    log: PathBuf,
}

impl Agent {
    async fn start(config: &Path, log: PathBuf) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["agent".as_ref(), "--config".as_ref(), config.as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log)?)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let mut lines = BufReader::new(stdout).lines();
        let line = timeout(READY_WITHIN, lines.next_line())
            .await
            .context("the agent was not ready in time")??;
        let address = line
            .as_deref()
            .and_then(|line| line.strip_prefix("tidegate-agent listening on "));
        let Some(address) = address.map(str::to_owned) else {
            bail!("the agent did not start: {}", tail(&log));
        };
        let url: ServerUrl = format!("http://{address}").parse()?;
        let client = Client::new(url.clone(), Duration::from_secs(2), 1 << 20);
        Ok(Self {
            child,
            url,
            client,
            log,
        })
    }

    async fn metrics(&self) -> anyhow::Result<String> {
        let response = self.client.get("/metrics").await?;
        Ok(String::from_utf8_lossy(&response.body).into_owned())
    }

    fn log(&self) -> String {
        tail(&self.log)
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        child::terminate(&self.child)?;
        let status = timeout(STOP_WITHIN, self.child.wait())
            .await
            .with_context(|| format!("the agent did not stop: {}", tail(&self.log)))??;
        if !status.success() {
            bail!("the agent ended with {status}: {}", tail(&self.log));
        }
        Ok(())
    }
}

/// The last lines of a log, for an error message.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

//! The steps of a model, and those that its author and a stranger take with the command line.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::registry::Registry;
use super::source::Source;

/// Longest run of one command: the largest graphs take seconds in a dev build.
const COMMAND_LIMIT: Duration = Duration::from_secs(300);

/// From one look at a running command to the next. Its time is not measured.
const COMMAND_POLL: Duration = Duration::from_millis(5);

/// What every model must pass, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Made a module of, with its samples.
    Pack,
    /// Signed by the author.
    Sign,
    /// Put into the registry.
    Publish,
    /// Fetched by the digest that publishing gave, and the same bytes.
    Pull,
    /// Verified against the author's key.
    Verify,
    /// Its samples give the reference outputs on this machine.
    Check,
    /// Served by the agent, which trusts that key alone.
    Load,
    /// Answered over HTTP.
    Infer,
    /// The answers are the reference outputs.
    Compare,
}

impl Step {
    /// Those that [`Author::take`] knows.
    pub(super) const OF_AUTHOR: [Self; 6] = [
        Self::Pack,
        Self::Sign,
        Self::Publish,
        Self::Pull,
        Self::Verify,
        Self::Check,
    ];

    pub(super) const ALL: [Self; 9] = [
        Self::Pack,
        Self::Sign,
        Self::Publish,
        Self::Pull,
        Self::Verify,
        Self::Check,
        Self::Load,
        Self::Infer,
        Self::Compare,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pack => "pack",
            Self::Sign => "sign",
            Self::Publish => "publish",
            Self::Pull => "pull",
            Self::Verify => "verify",
            Self::Check => "check",
            Self::Load => "load",
            Self::Infer => "infer",
            Self::Compare => "compare",
        }
    }
}

/// Who has the program, a key, and a folder for what comes out.
#[derive(Debug)]
pub(super) struct Author {
    tidegate: PathBuf,
    folder: PathBuf,
}

impl Author {
    /// Makes a key: `author.key` and `author.pub` in `folder`.
    pub(super) fn new(tidegate: &Path, folder: &Path) -> Result<Self> {
        let author = Self {
            tidegate: tidegate.to_owned(),
            folder: folder.to_owned(),
        };
        let mut keygen = author.tidegate();
        keygen.arg("keygen").arg("--out").arg(folder.join("author"));
        run(&mut keygen, &folder.join("keygen")).context("no key can be made")?;
        Ok(author)
    }

    /// `tidegate` with a state folder of this run.
    pub(super) fn tidegate(&self) -> Command {
        let mut command = Command::new(&self.tidegate);
        command
            .env("XDG_STATE_HOME", self.folder.join("state"))
            .env_remove("STATE_DIRECTORY")
            .current_dir(&self.folder);
        command
    }

    /// Where everything of this run lies.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The module of a model as it came from the registry.
    pub(super) fn pulled(&self, model: &str) -> PathBuf {
        self.folder.join(model).join("pulled.wasm")
    }

    /// Takes one step of the command line with a model that passed those before.
    pub(super) fn take(&self, step: Step, source: &Source, registry: &Registry) -> Result<()> {
        let folder = self.folder.join(&source.name);
        std::fs::create_dir_all(&folder)?;
        let made = folder.join("made.wasm");
        let pulled = self.pulled(&source.name);
        let pin = folder.join("pin");
        let mut command = self.tidegate();
        command.arg(step.name());
        match step {
            Step::Pack => {
                command.arg(source.folder.join("model.onnx"));
                command.arg("--out").arg(&made);
                command.arg("--samples").arg(&source.folder);
                command.args(["--name", &source.name]);
                for pair in &source.consts {
                    command.args(["--const", pair]);
                }
                for pair in &source.shapes {
                    command.args(["--shape", pair]);
                }
            }
            Step::Sign => {
                command.arg("--key").arg(self.folder.join("author.key"));
                command.arg(&made);
            }
            Step::Publish => {
                let repository = registry.repository(&source.name);
                command.arg(&made).arg(format!("{repository}:1.0.0"));
            }
            Step::Pull => {
                command.arg(std::fs::read_to_string(&pin)?);
                command.arg("--out").arg(&pulled);
            }
            Step::Verify => {
                command.arg("--key").arg(self.folder.join("author.pub"));
                command.arg(&pulled);
            }
            Step::Check => {
                command.arg(&pulled);
            }
            Step::Load | Step::Infer | Step::Compare => {
                unreachable!("the agent and its client take this step")
            }
        }
        let said = run(&mut command, &folder.join(step.name()))?;
        if step == Step::Publish {
            let reference = said.trim();
            ensure!(
                reference.contains("@sha256:"),
                "it printed {reference:?} and no digest"
            );
            std::fs::write(&pin, reference)?;
        }
        if step == Step::Pull {
            ensure!(
                std::fs::read(&made)? == std::fs::read(&pulled)?,
                "what came back are not the bytes that were published"
            );
        }
        Ok(())
    }
}

/// Runs a command to its end, within a limit, and gives what it printed. Its output stays in
/// `LOG.out` and `LOG.err`. The error of one that fails is its last line.
fn run(command: &mut Command, log: &Path) -> Result<String> {
    let (out, err) = (log.with_extension("out"), log.with_extension("err"));
    command
        .stdin(Stdio::null())
        .stdout(File::create(&out)?)
        .stderr(File::create(&err)?);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > COMMAND_LIMIT {
            child.kill()?;
            child.wait()?;
            bail!("took more than {} s", COMMAND_LIMIT.as_secs());
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "a child can only be asked whether it has ended, and this task has no runtime"
        )]
        thread::sleep(COMMAND_POLL);
    };
    let read =
        |path| Ok::<_, std::io::Error>(String::from_utf8_lossy(&std::fs::read(path)?).into_owned());
    let (said, complained) = (read(&out)?, read(&err)?);
    if !status.success() {
        let mut lines = complained.lines().rev().chain(said.lines().rev());
        match lines.find(|line| !line.trim().is_empty()) {
            Some(line) => bail!("{}", line.trim()),
            None => bail!("{status} without a word"),
        }
    }
    Ok(said)
}

//! Runs other programs: shown before they start, checked after they end.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// Cargo, the one that runs this task.
pub(crate) fn cargo(folder: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(folder);
    command
}

/// Runs a command to its end. Fails unless it succeeds.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    show(command);
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

/// Runs a command, ends it after `limit`. Fails unless it succeeds in time.
pub(crate) fn run_within(limit: Duration, command: &mut Command) -> Result<()> {
    show(command);
    let started = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = started.with_context(|| cannot_start(command))?;
    let stderr = child.stderr.take().context("standard error is piped")?;
    let (running, end) = mpsc::channel::<()>();
    // The stream ends when the program does, so its end can be waited for with a limit.
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            eprintln!("{line}");
        }
        drop(running);
    });
    if end.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
        child.kill()?;
        child.wait()?;
        bail!("{} took more than {} s", line(command), limit.as_secs());
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

/// Runs a command and hands each line of its output to `seen`, after writing it to ours. Gives
/// whether it succeeded.
pub(crate) fn run_and_watch(command: &mut Command, mut seen: impl FnMut(&str)) -> Result<bool> {
    show(command);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| cannot_start(command))?;
    let stdout = child.stdout.take().context("standard output is piped")?;
    let mut ours = std::io::stdout().lock();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        ours.write_all(&line)?;
        ours.write_all(b"\n")?;
        ours.flush()?;
        seen(&String::from_utf8_lossy(&line));
    }
    Ok(child.wait()?.success())
}

/// The output of a command, without the white space around it. Fails unless it succeeds.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| cannot_start(command))?;
    if !output.status.success() {
        bail!("{} failed ({})", line(command), output.status);
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Whether a program of this name is on the path or, given a path, is there.
pub(crate) fn exists(program: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok()
}

/// Installs packages with apt, by sudo unless we are root.
pub(crate) fn apt_install(packages: &[&str]) -> Result<()> {
    if !exists("apt-get") {
        bail!(
            "there is no apt-get here to install {} with",
            packages.join(" ")
        );
    }
    let is_root = read(Command::new("id").arg("-u"))? == "0";
    let apt = |arguments: &[&str]| {
        // sudo drops the environment, so the variable is set behind it.
        let mut command = Command::new(if is_root { "env" } else { "sudo" });
        command
            .args((!is_root).then_some("env"))
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
            .args(arguments);
        run(&mut command)
    };
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(packages);
    apt(&install)
        .or_else(|_| apt(&["update"]).and_then(|()| apt(&install)))
        .with_context(|| format!("cannot install {}", packages.join(" ")))
}

fn show(command: &Command) {
    eprintln!("$ {}", line(command));
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let name = Path::new(&*words[0])
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    std::iter::once(&*name)
        .chain(words[1..].iter().map(|word| &**word))
        .collect::<Vec<_>>()
        .join(" ")
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start {}", command.get_program().to_string_lossy())
}

//! `tidegate run`: runs a WebAssembly program of somebody else, with graphs, on this machine.
//!
//! It gets what the command line gives it and no more: no environment of ours, no folder, no network.
//! Its exit status becomes ours.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use tidegate_runtime::Vetting;
use tidegate_runtime::command::{
    CommandError, Ended, Folder, MEMORY_BYTES_DEFAULT, Options, Program,
};
use tidegate_runtime::module::FILE_BYTES_MAX;

use crate::span;

/// Most memory that a program can address: 4 GiB.
const MEMORY_MIB_MAX: u64 = 4096;

/// Run a WebAssembly program of somebody else.
///
/// Core modules may import wasi_snapshot_preview1 and wasi_ephemeral_nn, components WASI 0.2 and wasi:nn. A
/// model module is no program: an agent serves it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The program.
    #[arg(value_name = "PROGRAM.wasm")]
    program: PathBuf,
    /// An ONNX file that the program may load by name. Any number of them.
    #[arg(long, value_name = "NAME=MODEL.onnx", value_parser = graph)]
    graph: Vec<(String, PathBuf)>,
    /// The --graph that the program gets when it brings a graph in another format than ONNX.
    #[arg(long, value_name = "NAME")]
    stand_in: Option<String>,
    /// A folder that the program may read and write, under its own name or another. Any number of them.
    #[arg(long, value_name = "HOST[::GUEST]", value_parser = folder)]
    dir: Vec<Folder>,
    /// A variable of the program's environment; without a value, that of ours. Any number of them.
    #[arg(long, value_name = "NAME[=VALUE]", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Call this function of a library, with ARGS as its parameters, and print its results.
    #[arg(long, value_name = "FUNCTION")]
    invoke: Option<String>,
    /// Longest run [default: none].
    #[arg(long, value_name = "SPAN", value_parser = span::seconds)]
    timeout: Option<Duration>,
    /// Most memory, in MiB: that of the program, and as much again for tensors and for graphs that it
    /// brings.
    #[arg(long, value_name = "MIB", default_value_t = MEMORY_BYTES_DEFAULT as u64 >> 20,
        value_parser = clap::value_parser!(u64).range(1..=MEMORY_MIB_MAX))]
    memory: u64,
    /// What the program gets as its arguments.
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<String>,
}

/// Why a program did not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The program did not start, or did not end by itself.
    #[error("cannot run {}", path.display())]
    Command {
        /// The program.
        path: PathBuf,
        /// Why not.
        source: Box<CommandError>,
    },
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
}

impl RunError {
    /// Whether the caller can mend it by other arguments, with the same files.
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Command { source, .. } => source.is_usage(),
            Self::Read { .. } | Self::Print(_) => false,
        }
    }
}

/// Runs the program; its status is the command's.
pub(crate) fn run(args: Args) -> Result<ExitCode, RunError> {
    log_to_stderr();
    let program = read(&args.program)?;
    let graphs = args
        .graph
        .into_iter()
        .map(|(name, path)| Ok((name, read(&path)?)))
        .collect::<Result<_, _>>()?;
    let options = Options {
        name: args.program.display().to_string(),
        arguments: args.args,
        environment: args.env,
        folders: args.dir,
        graphs,
        stand_in: args.stand_in,
        invoke: args.invoke,
        timeout: args.timeout,
        memory_bytes_max: usize::try_from(args.memory << 20).unwrap_or(usize::MAX),
        vetting: Some(Vetting::by_this_program()),
    };
    let ended = Program::compile(&program)
        .and_then(|program| program.run(options))
        .map_err(|source| RunError::Command {
            path: args.program.clone(),
            source: Box::new(source),
        })?;
    let Ended { status, results } = ended;
    for result in results {
        writeln!(io::stdout(), "{result}").map_err(RunError::Print)?;
    }
    Ok(status.into())
}

/// What the program's errors cannot say, beside what it writes there itself.
fn log_to_stderr() {
    let log = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // Fails only where there is a log already, which then is the one to use.
    let _ = log.try_init();
}

fn graph(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok((name.to_owned(), path.into()))
        }
        Some(_) | None => Err("expected NAME=MODEL.onnx".to_owned()),
    }
}

fn folder(text: &str) -> Result<Folder, String> {
    let (host, guest) = text.split_once("::").unwrap_or((text, text));
    if host.is_empty() || guest.is_empty() {
        return Err("expected HOST or HOST::GUEST".to_owned());
    }
    Ok(Folder {
        host: host.into(),
        guest: guest.to_owned(),
    })
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => (text, std::env::var(text).unwrap_or_default()),
    };
    let holds_nul = |text: &str| text.contains('\0');
    if name.is_empty() || holds_nul(name) || holds_nul(&value) {
        return Err("expected NAME or NAME=VALUE".to_owned());
    }
    Ok((name.to_owned(), value))
}

fn read(path: &Path) -> Result<Bytes, RunError> {
    tidegate_store::read_regular(path, FILE_BYTES_MAX)
        .map(Bytes::from)
        .map_err(|source| RunError::Read {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_may_have_another_name_inside() {
        let folder = |text| folder(text).map(|folder| (folder.host, folder.guest));
        let pair = |host: &str, guest: &str| Ok((host.into(), guest.to_owned()));
        assert_eq!(folder("fixture"), pair("fixture", "fixture"));
        assert_eq!(folder("/a/b::fixture"), pair("/a/b", "fixture"));
        assert_eq!(folder("C:x::."), pair("C:x", "."));
        for bad in ["", "::", "a::", "::b"] {
            assert!(folder(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn graphs_and_variables_have_names() {
        assert_eq!(graph("m=a=b.onnx"), Ok(("m".to_owned(), "a=b.onnx".into())));
        for bad in ["", "m", "=a", "m="] {
            assert!(graph(bad).is_err(), "{bad}");
        }
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(variable("A="), Ok(("A".to_owned(), String::new())));
        for bad in ["", "=b", "A=\0"] {
            assert!(variable(bad).is_err(), "{bad:?}");
        }
    }
}

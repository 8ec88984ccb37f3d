//! What `publish` and `pull` share: how registries are reached, and how a transfer is shown.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidegate_registry::{Access, Registries, TransferError, Watch, docker_config_folder};

/// How registries are reached.
#[derive(Debug, clap::Args)]
pub(crate) struct RegistryArgs {
    /// Certificates (PEM) to trust beside the system's. With them, a registry on this machine is spoken to
    /// with TLS too.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl RegistryArgs {
    /// A client with the credentials of Docker's configuration.
    pub(crate) fn registries(&self) -> Result<Registries, TransferError> {
        Registries::new(Access {
            authorities: self.ca.clone(),
            docker_config: docker_config_folder(),
            on_repeat: Some(say_repeat),
            ..Access::default()
        })
    }
}

/// Shows a transfer on standard error: as a bar to a person, not at all to a file.
pub(crate) struct Shown {
    bar: ProgressBar,
}

impl Shown {
    pub(crate) fn new(what: &'static str) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10))
        } else {
            ProgressBar::hidden()
        };
        let style = ProgressStyle::with_template(
            "{msg} {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
        );
        bar.set_style(style.expect("a constant template"));
        bar.set_message(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar }
    }

    pub(crate) fn watch(&self) -> Watch {
        let bar = self.bar.clone();
        Watch::new(move |bytes, bytes_max| {
            bar.set_length(bytes_max);
            bar.set_position(bytes);
        })
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Keeps a person who waits from wondering.
fn say_repeat(failure: &TransferError, wait: Duration) {
    tell(&format!("{failure}, trying again in {wait:?}"));
}

/// One line for people, on standard error.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

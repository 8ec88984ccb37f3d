//! `tidegate dev-certs`: identities for an agent and its relays on one machine.

use std::io::{self, Write as _};
use std::path::PathBuf;

use tidegate_identity::{IdentityError, make_dev_certs};

/// Make certificates for an agent and relays on this machine, to try things out.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder for them; made if it is not there. Nothing in it is overwritten.
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub(crate) out: PathBuf,
}

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DevCertsError {
    /// The certificates cannot be made or written.
    #[error("cannot make certificates in {}", folder.display())]
    Make {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: IdentityError,
    },
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
}

/// Makes the certificates and says where they are.
pub(crate) fn run(args: &Args) -> Result<(), DevCertsError> {
    let folder = &args.out;
    make_dev_certs(folder).map_err(|source| DevCertsError::Make {
        folder: folder.clone(),
        source,
    })?;
    writeln!(
        io::stdout(),
        "{}: ca.pem, and agent.pem, agent.key, relay.pem, relay.key signed by it",
        folder.display()
    )
    .map_err(DevCertsError::Print)
}

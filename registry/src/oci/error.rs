//! What can go wrong between here and a registry, and whose fault it is.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tidegate_inference::Digest;
use tidegate_store::FolderError;

use super::credentials::ReadCredentialsError;

/// Longest pause that a registry may ask for between two repetitions.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);

/// Why a module was not pulled or published. Nothing that was not verified is kept.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The connection was refused, cut, or the name of the host leads nowhere.
    #[error("cannot reach {host}")]
    Connect {
        /// The registry, or where it sent us.
        host: String,
        /// The cause, without the address, which may hold a signed token.
        source: reqwest::Error,
    },
    /// The registry holds the connection open and sends too little.
    #[error("{host} sends nothing, or next to nothing, for {waited:?}")]
    Stalled {
        /// The registry, or where it sent us.
        host: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The registry refuses who we are.
    #[error("{host} wants other credentials for {what}: {found}")]
    Unauthorized {
        /// The registry.
        host: String,
        /// The repository.
        what: String,
        /// Which credentials there were, without them.
        found: &'static str,
    },
    /// There is nothing of this name.
    #[error("{host} has no {what}")]
    NotFound {
        /// The registry.
        host: String,
        /// The manifest or blob.
        what: String,
    },
    /// An answer that no retry mends.
    #[error("{host} answered {status} for {what}{message}")]
    Status {
        /// The registry.
        host: String,
        /// The HTTP status.
        status: u16,
        /// What was asked for.
        what: String,
        /// What the registry says, made harmless to print; empty or beginning with a colon.
        message: String,
        /// The pause before a repetition that the registry asks for.
        wait: Option<Duration>,
    },
    /// The registry asks for more patience than a transfer has.
    #[error("{host} is overloaded and asks to come back in {wait:?}")]
    Overloaded {
        /// The registry.
        host: String,
        /// The time that it names.
        wait: Duration,
    },
    /// An answer that sends us somewhere we do not go.
    #[error("{host} redirects {reason}")]
    Redirect {
        /// Who redirects.
        host: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The answer cannot be understood, or contradicts itself.
    #[error("{host} answers for {what} with {reason}")]
    Answer {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More bytes than are taken. Found before they are fetched, where the registry announces them.
    #[error("{what} has {bytes} bytes or more, above the {bytes_max} that are taken")]
    TooLarge {
        /// The manifest or module.
        what: String,
        /// Its bytes, as announced or as received so far.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The bytes are not those that the digest names.
    #[error("{host} gave {got} for {wanted}")]
    Digest {
        /// The registry.
        host: String,
        /// What was asked for.
        wanted: Digest,
        /// What the bytes hash to.
        got: Digest,
    },
    /// The manifest is no module's.
    #[error("the manifest of {reference} is no module's: {reason}")]
    Manifest {
        /// Whose manifest.
        reference: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What was to be published is no WebAssembly file.
    #[error("cannot publish what is no WebAssembly file: {0}")]
    NotWasm(String),
    /// A reference without a tag to publish under.
    #[error("{0} has no tag to publish under, or pins a digest besides")]
    NoTag(String),
    /// Another process downloads the same module and does not go on.
    #[error("another download of {0} is under way and makes no progress")]
    Busy(Digest),
    /// The credentials cannot be had.
    #[error("cannot get the credentials for {host}")]
    Credentials {
        /// The registry.
        host: String,
        /// The cause.
        source: ReadCredentialsError,
    },
    /// The file of certificates is of no use.
    #[error("cannot use the certificates of {path}: {reason}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No client for HTTP can be made.
    #[error("cannot set up TLS")]
    Tls(#[source] reqwest::Error),
    /// The download cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The store cannot keep the module.
    #[error(transparent)]
    Store(#[from] FolderError),
}

impl TransferError {
    /// Whether the registry is out of reach or in trouble, so that the same call may succeed later, and until
    /// then what the store has is the best there is.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Stalled { .. }
            | Self::Overloaded { .. }
            | Self::Busy(_) => true,
            Self::Status { status, .. } => is_temporary(*status),
            Self::Unauthorized { .. }
            | Self::NotFound { .. }
            | Self::Redirect { .. }
            | Self::Answer { .. }
            | Self::TooLarge { .. }
            | Self::Digest { .. }
            | Self::Manifest { .. }
            | Self::NotWasm(_)
            | Self::NoTag(_)
            | Self::Credentials { .. }
            | Self::Authorities { .. }
            | Self::Tls(_)
            | Self::Write { .. }
            | Self::Store(_) => false,
        }
    }
}

impl TransferError {
    /// The pause before a repetition: the one planned, or a longer one that the registry asks for.
    pub(crate) fn pause(&self, planned: Duration) -> Result<Duration, Self> {
        match self {
            Self::Status {
                host,
                wait: Some(wait),
                ..
            } if *wait > RETRY_WAIT_MAX => Err(Self::Overloaded {
                host: host.clone(),
                wait: *wait,
            }),
            Self::Status {
                wait: Some(wait), ..
            } => Ok(planned.max(*wait)),
            _ => Ok(planned),
        }
    }
}

/// Whether a status means that the same request may succeed later.
pub(crate) fn is_temporary(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Text of a stranger, short and without control characters, for a message after a colon.
pub(crate) fn harmless(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    let plain = text.chars().filter(|char| !char.is_control());
    let short: String = plain.take(CHARS_MAX).collect();
    if short.is_empty() {
        short
    } else {
        format!(": {short}")
    }
}

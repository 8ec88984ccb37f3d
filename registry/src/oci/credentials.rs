//! The credentials that Docker's configuration has for a registry.
//!
//! People are logged in already: `docker login`, `podman login` and every CI write the same file. It has
//! the secrets themselves or names programs that give them out. Those programs talk to key rings and
//! clouds, and may hang, so they run with a time limit. What they print and what the file says is never
//! shown: errors name the file or the program only.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;

/// Longest that a credential helper may take: one that asks a person is given up.
pub const HELPER_TIME_MAX: Duration = Duration::from_secs(20);

/// Most bytes of the configuration, and of what a helper may answer.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// The key of Docker's own registry in its configuration.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// Why credentials could not be had. None of it contains a secret.
#[derive(Debug, thiserror::Error)]
pub enum ReadCredentialsError {
    /// The file is there and cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The configuration file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file is not what Docker writes.
    #[error("{path} is no Docker configuration: {reason}")]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name of a helper could be that of another program.
    #[error("{0:?} cannot be the name of a credential helper")]
    HelperName(String),
    /// The helper does not start, or does not take its input.
    #[error("cannot run {helper}")]
    Run {
        /// The program.
        helper: String,
        /// The cause.
        source: io::Error,
    },
    /// The helper takes too long.
    #[error("{helper} has not answered within {waited:?}")]
    Slow {
        /// The program.
        helper: String,
        /// How long it had.
        waited: Duration,
    },
    /// The helper ends without credentials.
    #[error("{helper} {reason}")]
    Helper {
        /// The program.
        helper: String,
        /// What it did.
        reason: &'static str,
    },
}

/// What a registry knows us by. Its text is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// Nobody: public modules need no more.
    Anonymous,
    /// A name and its password.
    Password { user: String, password: String },
    /// A token that is exchanged for others.
    Identity(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

impl Credentials {
    /// Which they are, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Anonymous => "there are none in Docker's configuration",
            Self::Password { .. } => "the name and password of Docker's configuration are refused",
            Self::Identity(_) => "the token of Docker's configuration is refused",
        }
    }
}

impl From<DockerCredential> for Credentials {
    fn from(found: DockerCredential) -> Self {
        match found {
            DockerCredential::IdentityToken(token) => Self::Identity(token),
            DockerCredential::UsernamePassword(user, password) => Self::Password { user, password },
        }
    }
}

/// The folder of Docker's configuration: `$DOCKER_CONFIG`, else `.docker` at home.
#[must_use]
pub fn docker_config_folder() -> Option<PathBuf> {
    let named = std::env::var_os("DOCKER_CONFIG").filter(|name| !name.is_empty());
    named.map(PathBuf::from).or_else(|| {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty())?;
        Some(PathBuf::from(home).join(".docker"))
    })
}

/// The parts of the configuration that name helpers; `docker_credential` reads the others.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Helpers {
    #[serde(default)]
    cred_helpers: std::collections::HashMap<String, String>,
    #[serde(default)]
    creds_store: Option<String>,
}

/// The credentials for `host` in the configuration file of `folder`. No file means nobody.
pub(crate) async fn read(
    folder: Option<PathBuf>,
    host: &str,
) -> Result<Credentials, ReadCredentialsError> {
    let Some(path) = folder.map(|folder| folder.join("config.json")) else {
        return Ok(Credentials::Anonymous);
    };
    let config_error = |reason| ReadCredentialsError::Config {
        path: path.clone(),
        reason,
    };
    let text = match tokio::fs::File::open(&path).await {
        Ok(file) => {
            let mut text = Vec::new();
            let read = file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut text).await;
            read.map_err(|source| ReadCredentialsError::Read {
                path: path.clone(),
                source,
            })?;
            text
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Credentials::Anonymous),
        Err(source) => return Err(ReadCredentialsError::Read { path, source }),
    };
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(config_error("it is too large"));
    }
    let mut whole: Value =
        serde_json::from_slice(&text).map_err(|_| config_error("it is not JSON"))?;
    let helpers =
        Helpers::deserialize(&whole).map_err(|_| config_error("its helpers are not names"))?;
    let key = if host == "index.docker.io" {
        DOCKER_KEY
    } else {
        host
    };
    let own = |host: &str| {
        helpers
            .cred_helpers
            .get(host)
            .filter(|name| !name.is_empty())
    };
    if let Some(helper) = own(key).or_else(|| own(host)) {
        return ask(helper, key).await;
    }
    // The crate would run the program of all other registries itself, for as long as that takes.
    if let Some(members) = whole.as_object_mut() {
        members.remove("credsStore");
        members.remove("credHelpers");
    }
    let rest = whole.to_string();
    match get_credential_from_reader(rest.as_bytes(), key) {
        Ok(found) => Ok(found.into()),
        Err(CredentialRetrievalError::NoCredentialConfigured) => match helpers.creds_store {
            Some(helper) if !helper.is_empty() => ask(&helper, key).await,
            Some(_) | None => Ok(Credentials::Anonymous),
        },
        Err(CredentialRetrievalError::CredentialMismatchError) => Err(config_error(
            "its auth differs from its username and password",
        )),
        Err(CredentialRetrievalError::CredentialDecodingError) => Err(config_error(
            "an auth in it is not a name and a password in base64",
        )),
        Err(_) => Err(config_error("its auths are malformed")),
    }
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks `docker-credential-NAME` for the credentials of `key`.
async fn ask(name: &str, key: &str) -> Result<Credentials, ReadCredentialsError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.bytes().all(is_plain) {
        return Err(ReadCredentialsError::HelperName(name.to_owned()));
    }
    let helper = format!("docker-credential-{name}");
    let answered = timeout(HELPER_TIME_MAX, run(&helper, key)).await;
    let (succeeded, output) = answered.map_err(|_| ReadCredentialsError::Slow {
        helper: helper.clone(),
        waited: HELPER_TIME_MAX,
    })??;
    if !succeeded {
        // This sentence is part of the protocol of helpers; all others are for logs that we do not keep.
        let is_unknown = String::from_utf8_lossy(&output).contains("credentials not found");
        return if is_unknown {
            Ok(Credentials::Anonymous)
        } else {
            let reason = "failed";
            Err(ReadCredentialsError::Helper { helper, reason })
        };
    }
    let answer: Answer = serde_json::from_slice(&output).map_err(|_| {
        let reason = "answered with something else than a name and a secret";
        ReadCredentialsError::Helper { helper, reason }
    })?;
    Ok(match answer.username.as_str() {
        "<token>" => Credentials::Identity(answer.secret),
        _ => Credentials::Password {
            user: answer.username,
            password: answer.secret,
        },
    })
}

/// Runs a helper to its end. Gives whether it succeeded, and its output. Dropped, it ends the program.
async fn run(helper: &str, key: &str) -> Result<(bool, Vec<u8>), ReadCredentialsError> {
    let run_error = |source| ReadCredentialsError::Run {
        helper: helper.to_owned(),
        source,
    };
    let mut child = Command::new(helper)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(run_error)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that needs no input may be gone before it gets any.
        let _ = stdin.write_all(key.as_bytes()).await;
    }
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let read = stdout.take(CONFIG_BYTES_MAX).read_to_end(&mut output).await;
        read.map_err(run_error)?;
    }
    let status = child.wait().await.map_err(run_error)?;
    Ok((status.success(), output))
}

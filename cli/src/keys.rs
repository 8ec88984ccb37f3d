//! Keys as arguments name them: files, or a public key itself.

use std::io;
use std::path::{Path, PathBuf};

use tidegate_registry::signature::{KEY_FILE_BYTES_MAX, KeyError, PublicKey, SecretKey};

/// Why an argument is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadKeyError {
    /// The file cannot be read.
    #[error("cannot read key {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It holds no such key.
    #[error("cannot use key {named}")]
    Key {
        /// The file, or the key as it was given.
        named: String,
        /// What is wrong with it.
        source: KeyError,
    },
}

/// The public key in a file, or in the argument: a line that begins with `ssh-ed25519`.
pub(crate) fn public(argument: &str) -> Result<PublicKey, ReadKeyError> {
    let key = if argument.starts_with("ssh-ed25519 ") {
        argument.parse()
    } else {
        PublicKey::read(&read(Path::new(argument))?)
    };
    key.map_err(|source| ReadKeyError::Key {
        named: argument.to_owned(),
        source,
    })
}

/// The secret key in a file.
pub(crate) fn secret(path: &Path) -> Result<SecretKey, ReadKeyError> {
    SecretKey::read(&read(path)?).map_err(|source| ReadKeyError::Key {
        named: path.display().to_string(),
        source,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, ReadKeyError> {
    tidegate_store::read_regular(path, KEY_FILE_BYTES_MAX).map_err(|source| ReadKeyError::Read {
        path: path.to_owned(),
        source,
    })
}

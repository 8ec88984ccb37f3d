//! Why a file cannot be signed, or is not signed well enough.

use super::{DecodeError, LayoutError};

/// Why a file cannot be signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The file has no parts to sign.
    #[error("cannot find the parts of the file")]
    Layout(#[from] LayoutError),
    /// The signatures that are there cannot be kept.
    #[error("cannot read the signatures that are there")]
    Existing(#[source] DecodeError),
    /// There is no room for another signature.
    #[error("cannot add a signature to those that are there")]
    Full(#[source] DecodeError),
}

/// Why a file is not signed as it must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The file is malformed.
    #[error("cannot find the parts of the file")]
    Layout(#[from] LayoutError),
    /// The signatures are malformed.
    #[error("cannot read the signatures")]
    Data(#[from] DecodeError),
    /// There is no signature.
    #[error("the file is not signed")]
    Unsigned,
    /// Not enough known keys signed all of it.
    #[error("{got} of {wanted} wanted signatures by known keys cover the whole file: {reasons}")]
    TooFew {
        /// Distinct known keys that signed every part.
        got: usize,
        /// How many must.
        wanted: usize,
        /// What is wrong with each of the others.
        reasons: String,
    },
}

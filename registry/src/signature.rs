//! Signatures of WebAssembly files: who vouches for which parts.
//!
//! The format is WebAssembly's tool convention for signatures, as the crate `wasmsign2` writes it. A custom
//! section `signature` at the very beginning, or a file beside the module, holds lists of hashes and
//! Ed25519 signatures of each list. Custom sections `signature_delimiter` end the parts of a file, and the
//! hash of a part runs from behind the signature section to the end of that part's delimiter; so each
//! hash commits to everything before it, and a beginning of the file can be verified alone.
//!
//! The convention lets a signature speak of a beginning only, and what follows is nobody's. Here that is not
//! enough: [`Report::require`] counts a key only if it signed every part, up to the last byte. The eight
//! bytes of the file's header are not signed, as the convention has it; they have two possible values,
//! and a module read as a component, or the reverse, is malformed.
//!
//! Nothing is copied: a file is looked at in place and hashed once, whatever the number of signatures.

mod data;
mod error;
mod key;
mod key_files;
mod layout;
mod sign;
mod verify;

pub use data::{DecodeError, SIGNATURE_BYTES_MAX, SIGNATURES_MAX};
pub use error::{SignError, VerifyError};
pub use key::{KEY_ID_BYTES, KeyId, PublicKey, SecretKey};
pub use key_files::{KEY_FILE_BYTES_MAX, KeyError};
pub use layout::{Layout, LayoutError, PARTS_MAX, Part, SECTIONS_MAX};
pub use sign::{Signed, sign, sign_detached};
pub use verify::{Coverage, Report, Signer, Statement, verify};

/// Name of the section that holds signatures.
pub const SIGNATURE_SECTION: &str = "signature";

/// Name of the section that ends a part.
pub const DELIMITER_SECTION: &str = "signature_delimiter";

//! Why certificates could not be made, read or used, and why a peer is not who it must be.

use std::io;
use std::path::PathBuf;

use crate::{FILE_BYTES_MAX, ParsePeerNameError, PeerName, Role};

/// A library's own error, kept as the source of ours.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why certificates could not be made, read or used. No variant holds a byte of a key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file that is not there, or may not be read.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file above [`FILE_BYTES_MAX`].
    #[error("{path:?} is larger than {FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file with a PEM section that is cut off or not base64.
    #[error("{path:?} is not well-formed PEM")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Source,
    },
    /// A PEM file without the section that it is read for.
    #[error("{path:?} has no PEM section {section:?}")]
    NoSection {
        /// The file.
        path: PathBuf,
        /// The label wanted.
        section: &'static str,
    },
    /// A section that is not a certificate, or not one that can be used.
    #[error("certificate {number} of {path:?} cannot be used")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Position in the file, from 1.
        number: usize,
        /// What is wrong with it.
        source: Source,
    },
    /// Our own certificate names nobody, or somebody that has no role.
    #[error("the first certificate of {path:?} names no device or relay")]
    Name {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PeerError,
    },
    /// Our own certificate is for the other side.
    #[error("{path:?} is the certificate of {name}, where that of a {wanted} is needed")]
    Role {
        /// The file.
        path: PathBuf,
        /// The name in it.
        name: PeerName,
        /// The role wanted.
        wanted: Role,
    },
    /// A key that is of an unknown type, or not the certificate's.
    #[error("the key in {key:?} is not that of the certificate in {certificate:?}")]
    Key {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        certificate: PathBuf,
        /// What is wrong with it.
        source: Source,
    },
    /// The TLS library refuses the CA or the settings.
    #[error("cannot set TLS up with the CA in {path:?}")]
    Tls {
        /// The file of the CA.
        path: PathBuf,
        /// What is wrong with it.
        source: Source,
    },
    /// A peer's certificate that names no device or relay.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A key or certificate that could not be made.
    #[error("cannot make a certificate")]
    Make {
        /// What is wrong.
        source: Source,
    },
    /// A file that is there already, and is not overwritten.
    #[error("{path:?} exists already and is not overwritten")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file that could not be written. None of the set is left behind.
    #[error("cannot write {path:?}")]
    Write {
        /// The file, or the folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Why a peer's certificate, valid as it may be, does not allow the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// An empty chain.
    #[error("there is no certificate")]
    NoCertificate,
    /// A leaf that is not an X.509 certificate.
    #[error("the certificate is not X.509")]
    NotX509,
    /// A leaf with no SPIFFE ID, or with several, of which none can be preferred.
    #[error("the certificate has {count} URI names instead of one")]
    NotOneName {
        /// URI names found.
        count: usize,
    },
    /// A leaf whose URI is not a name of ours.
    #[error(transparent)]
    NotAName(#[from] ParsePeerNameError),
    /// A peer of the same role as ours.
    #[error("the peer is {name}, where a {wanted} is needed")]
    Role {
        /// The peer.
        name: PeerName,
        /// The role wanted.
        wanted: Role,
    },
    /// A peer of another trust domain under the same CA.
    #[error("the peer is {name}, which is not of trust domain {domain:?}")]
    Domain {
        /// The peer.
        name: PeerName,
        /// Our own domain.
        domain: String,
    },
}

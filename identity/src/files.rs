//! Reads a certificate chain, its key and a CA from PEM files.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::name::name_of;
use crate::{IdentityError, PeerName, Role};

/// Most bytes of a PEM file: some thirty certificates with long keys.
pub const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where one side's certificate chain, its key, and the CA that it trusts lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFiles {
    /// Certificate chain in PEM, our own certificate first, then any intermediates.
    pub certificate: PathBuf,
    /// Private key of our own certificate in PEM (PKCS#8, SEC1 or PKCS#1).
    pub key: PathBuf,
    /// CA certificates in PEM; a peer's chain must end at one of them.
    pub ca: PathBuf,
}

/// What the files hold.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) roots: RootCertStore,
    pub(crate) name: PeerName,
}

impl IdentityFiles {
    /// Reads the three files, which must be those of a `role`.
    pub(crate) fn load(&self, role: Role) -> Result<Identity, IdentityError> {
        let path = &self.certificate;
        let chain = read_certificates(path)?;
        let name = name_of(&chain).map_err(|source| IdentityError::Name {
            path: path.clone(),
            source,
        })?;
        if name.role() != role {
            return Err(IdentityError::Role {
                path: path.clone(),
                name,
                wanted: role,
            });
        }
        Ok(Identity {
            chain,
            key: read_key(&self.key)?,
            roots: read_roots(&self.ca)?,
            name,
        })
    }
}

fn read_roots(path: &Path) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for (index, certificate) in read_certificates(path)?.into_iter().enumerate() {
        roots
            .add(certificate)
            .map_err(|source| IdentityError::Certificate {
                path: path.to_owned(),
                number: index + 1,
                source: source.into(),
            })?;
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let text = read_bounded(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|source| pem_error(path, "CERTIFICATE", source))?;
    if certificates.is_empty() {
        return Err(pem_error(path, "CERTIFICATE", pem::Error::NoItemsFound));
    }
    Ok(certificates)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, IdentityError> {
    let text = read_bounded(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| pem_error(path, "PRIVATE KEY", source))
}

fn pem_error(path: &Path, section: &'static str, source: pem::Error) -> IdentityError {
    let path = path.to_owned();
    match source {
        pem::Error::NoItemsFound => IdentityError::NoSection { path, section },
        source => IdentityError::Pem {
            path,
            source: source.into(),
        },
    }
}

/// Reads a whole file of at most [`FILE_BYTES_MAX`]. Never reads more, whatever its size says.
fn read_bounded(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|source| IdentityError::Read {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let path = path.to_owned();
        return Err(IdentityError::TooLarge { path });
    }
    Ok(bytes)
}

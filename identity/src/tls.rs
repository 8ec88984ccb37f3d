//! The TLS configurations of the two sides.

use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::error::Source;
use crate::verifier::{DeviceVerifier, RelayVerifier, Wanted};
use crate::{IdentityError, IdentityFiles, Role};

/// A relay's side: TLS 1.3 only, presents the relay's certificate, requires one of a device of the
/// same trust domain, and never resumes. The protocol must be `alpn`.
///
/// Reads the files once; a renewed certificate takes a new configuration.
pub fn relay_config(
    files: &IdentityFiles,
    alpn: &[u8],
) -> Result<Arc<ServerConfig>, IdentityError> {
    let identity = files.load(Role::Relay)?;
    let wanted = Wanted::opposite(&identity.name);
    let provider = provider();
    let inner =
        WebPkiClientVerifier::builder_with_provider(identity.roots.into(), Arc::clone(&provider))
            .build()
            .map_err(|source| tls_error(files, source.into()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| tls_error(files, source.into()))?
        .with_client_cert_verifier(Arc::new(DeviceVerifier { inner, wanted }))
        .with_single_cert(identity.chain, identity.key)
        .map_err(|source| key_error(files, source))?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// An agent's side: TLS 1.3 only, presents the device's certificate, requires one of a relay of the
/// same trust domain that is valid for the host name, and never resumes. The protocol must be
/// `alpn`.
///
/// Reads the files once; a renewed certificate takes a new configuration.
pub fn agent_config(
    files: &IdentityFiles,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, IdentityError> {
    let identity = files.load(Role::Device)?;
    let wanted = Wanted::opposite(&identity.name);
    let provider = provider();
    let inner =
        WebPkiServerVerifier::builder_with_provider(identity.roots.into(), Arc::clone(&provider))
            .build()
            .map_err(|source| tls_error(files, source.into()))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| tls_error(files, source.into()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(RelayVerifier { inner, wanted }))
        .with_client_auth_cert(identity.chain, identity.key)
        .map_err(|source| key_error(files, source))?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// Named here, since a process-wide default could be another.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn tls_error(files: &IdentityFiles, source: Source) -> IdentityError {
    let path = files.ca.clone();
    IdentityError::Tls { path, source }
}

fn key_error(files: &IdentityFiles, source: rustls::Error) -> IdentityError {
    IdentityError::Key {
        key: files.key.clone(),
        certificate: files.certificate.clone(),
        source: source.into(),
    }
}

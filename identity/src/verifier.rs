//! Asks, after the TLS library has verified a chain, whether the peer is of the right role.
//!
//! Everything that makes a certificate valid (chain, dates, host name, key usage, signatures) is
//! left to the library's own verifiers; what is here can only refuse more.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use crate::name::name_of;
use crate::{PeerError, PeerName, Role};

/// What a peer must be.
#[derive(Debug)]
pub(crate) struct Wanted {
    role: Role,
    domain: String,
}

impl Wanted {
    /// A peer of the same domain as `own` and of the other role.
    pub(crate) fn opposite(own: &PeerName) -> Self {
        let role = match own.role() {
            Role::Device => Role::Relay,
            Role::Relay => Role::Device,
        };
        let domain = own.trust_domain().to_owned();
        Self { role, domain }
    }

    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let check = || {
            let name = name_of(std::slice::from_ref(leaf))?;
            if name.trust_domain() != self.domain {
                let domain = self.domain.clone();
                return Err(PeerError::Domain { name, domain });
            }
            if name.role() != self.role {
                let wanted = self.role;
                return Err(PeerError::Role { name, wanted });
            }
            Ok(())
        };
        check().map_err(|error| CertificateError::Other(OtherError(Arc::new(error))).into())
    }
}

/// What an agent asks of the other side.
#[derive(Debug)]
pub(crate) struct RelayVerifier {
    pub(crate) inner: Arc<WebPkiServerVerifier>,
    pub(crate) wanted: Wanted,
}

impl ServerCertVerifier for RelayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        self.wanted.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// What a relay asks of the other side.
#[derive(Debug)]
pub(crate) struct DeviceVerifier {
    pub(crate) inner: Arc<dyn ClientCertVerifier>,
    pub(crate) wanted: Wanted,
}

impl ClientCertVerifier for DeviceVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        self.wanted.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

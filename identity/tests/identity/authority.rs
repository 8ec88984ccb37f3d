//! A certificate authority for tests, which signs whatever a test wants refused.

use std::fs;
use std::path::Path;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use tempfile::TempDir;
use tidegate_identity::IdentityFiles;

/// A CA and the folder where it puts what it signs.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A certificate for `ids` and `host` that is good for both sides of a connection, so that
    /// only the name can tell the roles apart.
    pub(crate) fn sign(&self, file: &str, ids: &[&str], host: &str) -> IdentityFiles {
        let mut params = CertificateParams::new([host.to_owned()]).unwrap();
        for id in ids {
            let id = Ia5String::try_from(*id).unwrap();
            params.subject_alt_names.push(SanType::URI(id));
        }
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = self.files(file);
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    /// Where [`Self::sign`] puts the certificate of this name.
    pub(crate) fn files(&self, file: &str) -> IdentityFiles {
        IdentityFiles {
            certificate: self.dir().join(format!("{file}.pem")),
            key: self.dir().join(format!("{file}.key")),
            ca: self.dir().join("ca.pem"),
        }
    }
}

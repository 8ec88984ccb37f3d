//! Certificates for trying things out on one machine.
//!
//! One CA, one agent and one relay in the trust domain `dev.tidegate.internal`, on ECDSA P-256,
//! valid for [`DEV_VALIDITY`]. The CA's key lies beside them, so whoever reads the folder can make
//! more: not for production, where devices enrol and the CA's key stays away.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use tempfile::NamedTempFile;

use crate::IdentityError;

/// How long development certificates are valid.
pub const DEV_VALIDITY: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How far before now they become valid, for clocks that disagree.
const BACKDATE: Duration = Duration::from_secs(5 * 60);

const AGENT_ID: &str = "spiffe://dev.tidegate.internal/tenant/dev/device/agent";
const RELAY_ID: &str = "spiffe://dev.tidegate.internal/relay/relay";

/// A file to be written.
struct Output {
    name: &'static str,
    text: String,
    mode: u32,
}

/// Writes `ca.pem`, `ca.key`, `agent.pem`, `agent.key`, `relay.pem` and `relay.key` into `dir`,
/// which is made if it does not exist.
///
/// Keys are readable by their owner alone. Nothing is overwritten: if one of the files exists,
/// none is written. On failure none is left behind.
pub fn make_dev_certs(dir: &Path) -> Result<(), IdentityError> {
    make_dev_certs_at(dir, SystemTime::now())
}

/// As [`make_dev_certs`], but valid as if made at `now`.
pub fn make_dev_certs_at(dir: &Path, now: SystemTime) -> Result<(), IdentityError> {
    let outputs = make(now).map_err(|source| IdentityError::Make {
        source: source.into(),
    })?;
    write_all(dir, &outputs)
}

fn make(now: SystemTime) -> Result<[Output; 6], rcgen::Error> {
    let ca = CertifiedIssuer::self_signed(ca_params(now), new_key()?)?;
    let agent_key = new_key()?;
    let agent = leaf_params(now, AGENT_ID, ExtendedKeyUsagePurpose::ClientAuth, &[])?
        .signed_by(&agent_key, &ca)?;
    let relay_key = new_key()?;
    let loopback = [
        SanType::DnsName(Ia5String::try_from("localhost")?),
        SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    ];
    let relay = leaf_params(
        now,
        RELAY_ID,
        ExtendedKeyUsagePurpose::ServerAuth,
        &loopback,
    )?
    .signed_by(&relay_key, &ca)?;
    Ok([
        public("ca.pem", ca.pem()),
        secret("ca.key", ca.key()),
        public("agent.pem", agent.pem()),
        secret("agent.key", &agent_key),
        public("relay.pem", relay.pem()),
        secret("relay.key", &relay_key),
    ])
}

fn new_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
}

fn public(name: &'static str, text: String) -> Output {
    let mode = 0o644;
    Output { name, text, mode }
}

fn secret(name: &'static str, key: &KeyPair) -> Output {
    let (text, mode) = (key.serialize_pem(), 0o600);
    Output { name, text, mode }
}

fn ca_params(now: SystemTime) -> CertificateParams {
    let mut params = params(now, "Tidegate development CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn leaf_params(
    now: SystemTime,
    id: &'static str,
    usage: ExtendedKeyUsagePurpose,
    names: &[SanType],
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = params(now, "Tidegate development");
    params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(id)?)];
    params.subject_alt_names.extend_from_slice(names);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn params(now: SystemTime, common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let start = now.checked_sub(BACKDATE).unwrap_or(UNIX_EPOCH);
    let since_epoch = start.duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch;
    params.not_after = params.not_before + BACKDATE + DEV_VALIDITY;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

/// Writes every file or none.
///
/// Each is first written in full under a temporary name and synced, then all are given their names,
/// which fails where a name is taken. Only a crash between two of these last steps leaves a part
/// of the set, of whole files; the next call then names the first of them.
fn write_all(dir: &Path, outputs: &[Output]) -> Result<(), IdentityError> {
    let write_error = |path: PathBuf| |source| IdentityError::Write { path, source };
    fs::create_dir_all(dir).map_err(write_error(dir.to_owned()))?;
    let paths: Vec<_> = outputs.iter().map(|output| dir.join(output.name)).collect();
    for path in &paths {
        if fs::symlink_metadata(path).is_ok() {
            return Err(IdentityError::Exists { path: path.clone() });
        }
    }
    let mut drafts = Vec::with_capacity(outputs.len());
    for (output, path) in outputs.iter().zip(&paths) {
        drafts.push(draft(dir, output).map_err(write_error(path.clone()))?);
    }
    for (done, draft) in drafts.into_iter().enumerate() {
        if let Err(failed) = draft.persist_noclobber(&paths[done]) {
            for written in &paths[..done] {
                // The first error is the one to report, and these files are ours, made just now.
                let _ = fs::remove_file(written);
            }
            let path = paths[done].clone();
            return Err(match failed.error.kind() {
                io::ErrorKind::AlreadyExists => IdentityError::Exists { path },
                _ => write_error(path)(failed.error),
            });
        }
    }
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(write_error(dir.to_owned()))
}

fn draft(dir: &Path, output: &Output) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(output.mode))
        .tempfile_in(dir)?;
    file.write_all(output.text.as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

//! Files that are missing, broken or mixed up: each error names the file and what is wrong.

use std::error::Error;
use std::fs;
use std::path::Path;

use tidegate_identity::{
    FILE_BYTES_MAX, IdentityError, IdentityFiles, PeerError, Role, agent_config, relay_config,
};

use crate::authority::Authority;

const DEVICE: &str = "spiffe://d.example/tenant/t/device/d";
const RELAY: &str = "spiffe://d.example/relay/r";

fn refused(files: &IdentityFiles) -> IdentityError {
    let agent = agent_config(files, b"x").map(drop);
    agent.expect_err("these files are good")
}

/// The error and its sources, as a daemon logs them.
fn chain(error: &IdentityError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Breaks one of an agent's files and looks for `wanted` in the error, beside the file's name.
#[track_caller]
fn check(spoil: impl FnOnce(&IdentityFiles) -> &Path, contents: Option<&[u8]>, wanted: &str) {
    let authority = Authority::new();
    let files = authority.sign("agent", &[DEVICE], "localhost");
    let path = spoil(&files);
    match contents {
        Some(contents) => fs::write(path, contents).unwrap(),
        None => fs::remove_file(path).unwrap(),
    }
    let text = chain(&refused(&files));
    let file = path.file_name().unwrap().to_str().unwrap();
    assert!(text.contains(wanted) && text.contains(file), "{text}");
}

const CUT_OFF: &[u8] = b"-----BEGIN CERTIFICATE-----\nMIIB\n";
const NOT_BASE64: &[u8] = b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
const NOT_X509: &[u8] = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const NOT_A_KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

#[test]
fn a_missing_file() {
    check(|files| &files.certificate, None, "cannot read");
    check(|files| &files.key, None, "cannot read");
    check(|files| &files.ca, None, "cannot read");
}

#[test]
fn a_file_without_the_section() {
    for contents in [&b""[..], b"hello\n", b"\0\xff\xfe", NOT_A_KEY] {
        check(
            |files| &files.certificate,
            Some(contents),
            "no PEM section \"CERTIFICATE\"",
        );
        check(
            |files| &files.ca,
            Some(contents),
            "no PEM section \"CERTIFICATE\"",
        );
    }
    for contents in [&b""[..], b"hello\n", NOT_X509] {
        check(
            |files| &files.key,
            Some(contents),
            "no PEM section \"PRIVATE KEY\"",
        );
    }
}

#[test]
fn a_section_that_is_broken() {
    check(
        |files| &files.certificate,
        Some(CUT_OFF),
        "not well-formed PEM",
    );
    check(
        |files| &files.certificate,
        Some(NOT_BASE64),
        "not well-formed PEM",
    );
    check(|files| &files.certificate, Some(NOT_X509), "not X.509");
    check(|files| &files.ca, Some(CUT_OFF), "not well-formed PEM");
    check(|files| &files.ca, Some(NOT_X509), "certificate 1 of");
    check(
        |files| &files.key,
        Some(NOT_A_KEY),
        "not that of the certificate",
    );
}

#[test]
fn a_file_that_is_too_large() {
    let large = vec![b'\n'; usize::try_from(FILE_BYTES_MAX).unwrap() + 1];
    check(
        |files| &files.certificate,
        Some(&large),
        "larger than 65536 bytes",
    );
    check(|files| &files.key, Some(&large), "larger than 65536 bytes");
    check(|files| &files.ca, Some(&large), "larger than 65536 bytes");
}

#[test]
fn a_file_without_an_end_is_not_read_to_the_end() {
    let authority = Authority::new();
    let mut files = authority.sign("agent", &[DEVICE], "localhost");
    files.ca = "/dev/zero".into();
    assert!(matches!(refused(&files), IdentityError::TooLarge { .. }));
}

#[test]
fn the_second_certificate_of_a_ca_file_is_named_by_its_number() {
    let authority = Authority::new();
    let files = authority.sign("agent", &[DEVICE], "localhost");
    let mut ca = fs::read(&files.ca).unwrap();
    ca.extend_from_slice(NOT_X509);
    fs::write(&files.ca, ca).unwrap();
    assert!(matches!(
        refused(&files),
        IdentityError::Certificate { number: 2, .. }
    ));
}

#[test]
fn the_key_of_another_certificate() {
    let authority = Authority::new();
    let other = authority.sign("other", &[DEVICE], "localhost");
    let mut files = authority.sign("agent", &[DEVICE], "localhost");
    files.key = other.key;
    let error = refused(&files);
    assert!(matches!(error, IdentityError::Key { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("other.key") && text.contains("agent.pem"),
        "{text}"
    );
    let relay = authority.sign("relay", &[RELAY], "localhost");
    files.certificate = relay.certificate;
    let error = relay_config(&files, b"x").map(drop).unwrap_err();
    assert!(matches!(error, IdentityError::Key { .. }), "{error}");
}

#[test]
fn the_certificate_of_the_other_side() {
    let authority = Authority::new();
    let relay = authority.sign("relay", &[RELAY], "localhost");
    let device = authority.sign("device", &[DEVICE], "localhost");
    let (path, name) = (relay.certificate.clone(), RELAY.parse().unwrap());
    match refused(&relay) {
        IdentityError::Role {
            path: found,
            name: in_it,
            wanted,
        } => {
            assert_eq!((found, in_it, wanted), (path, name, Role::Device));
        }
        other => panic!("{other}"),
    }
    assert!(matches!(
        relay_config(&device, b"x").map(drop).unwrap_err(),
        IdentityError::Role {
            wanted: Role::Relay,
            ..
        }
    ));
    let nobody = authority.sign("nobody", &[], "localhost");
    assert!(matches!(
        refused(&nobody),
        IdentityError::Name {
            source: PeerError::NotOneName { count: 0 },
            ..
        }
    ));
}

#[test]
fn no_error_holds_a_byte_of_a_key() {
    let authority = Authority::new();
    let files = authority.sign("agent", &[DEVICE], "localhost");
    let key = fs::read_to_string(&files.key).unwrap();
    let secret = key.lines().nth(1).unwrap();
    // The key where a certificate belongs, cut off, and with one letter spoilt.
    let spoilt = key.replace(secret, &format!("{}!", &secret[1..]));
    for contents in [key.as_str(), &key[..key.len() - 30], &spoilt] {
        for path in [&files.certificate, &files.key] {
            let before = fs::read(path).unwrap();
            fs::write(path, contents).unwrap();
            if let Err(error) = agent_config(&files, b"x") {
                let text = format!("{} {error:?}", chain(&error));
                assert!(!text.contains(&secret[1..20]), "{text}");
            }
            fs::write(path, before).unwrap();
        }
    }
}

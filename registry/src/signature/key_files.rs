//! Keys as they are written in files, by us, `wasmsign2`, OpenSSL and OpenSSH.
//!
//! A secret key is written as PKCS#8 in PEM, which all but OpenSSH read; a public key as OpenSSH's one
//! line. What is read: those two; DER; the convention's bare bytes (`0x01` and 32 bytes, `0x81` and 64);
//! PEM of public keys; and OpenSSH's private keys without a passphrase.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::key::{PublicKey, SecretKey};

/// Largest file of a key.
pub const KEY_FILE_BYTES_MAX: usize = 16 << 10;

/// What stands before the key in PKCS#8 without a public key: version 0, id-Ed25519, a string in a string.
const PKCS8_PREFIX: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// What stands before the key in a SubjectPublicKeyInfo.
const SPKI_PREFIX: [u8; 12] = *b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00";

/// What the convention puts before a public key and before a key pair.
const BARE_PUBLIC: u8 = 0x01;
const BARE_SECRET: u8 = 0x81;

const SSH_KIND: &str = "ssh-ed25519";
const SSH_MAGIC: &[u8] = b"openssh-key-v1\0";

/// Why bytes are not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing that is known.
    #[error("not an Ed25519 key in a form that is known")]
    Form,
    /// A secret key where a public one is wanted.
    #[error("a secret key, where its public key is wanted")]
    IsSecret,
    /// A public key where a secret one is wanted.
    #[error("a public key, where the secret key is wanted")]
    IsPublic,
    /// A passphrase protects it.
    #[error("the key is encrypted with a passphrase; only plain keys are read")]
    Encrypted,
    /// Anybody can sign for it.
    #[error("a key of small order, for which anybody can sign: make another")]
    SmallOrder,
    /// Its halves do not belong together.
    #[error("the secret key does not belong to the public key beside it")]
    Mismatch,
}

impl PublicKey {
    /// Reads a key in any form, such as the contents of a file.
    pub fn read(bytes: &[u8]) -> Result<Self, KeyError> {
        if let Some((&BARE_PUBLIC, key)) = bytes.split_first()
            && let Ok(key) = key.try_into()
        {
            return Self::from_bytes(key).ok_or(KeyError::SmallOrder);
        }
        if let Some(key) = bytes.strip_prefix(&SPKI_PREFIX)
            && let Ok(key) = key.try_into()
        {
            return Self::from_bytes(key).ok_or(KeyError::SmallOrder);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| KeyError::Form);
        let found = text.and_then(|text| match pem(text) {
            Some(("PUBLIC KEY", der)) => Self::read(&der),
            Some(_) => Err(KeyError::Form),
            None => text.parse(),
        });
        found.map_err(|error| match SecretKey::read_secret(bytes) {
            Ok(_) | Err(KeyError::Encrypted) => KeyError::IsSecret,
            Err(_) => error,
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blob = [
            &ssh_string(SSH_KIND.as_bytes())[..],
            &ssh_string(self.bytes()),
        ]
        .concat();
        write!(f, "{SSH_KIND} {}", BASE64_STANDARD.encode(blob))
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    /// Reads the one line that `Display` writes, perhaps with a comment behind it.
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err(KeyError::Form);
        };
        let mut words = line.split_ascii_whitespace();
        let (Some(SSH_KIND), Some(blob)) = (words.next(), words.next()) else {
            return Err(KeyError::Form);
        };
        let blob = BASE64_STANDARD.decode(blob).map_err(|_| KeyError::Form)?;
        let mut fields = SshFields(&blob);
        let kind = fields.string()?;
        let key = fields.string()?;
        match key.try_into() {
            Ok(key) if kind == SSH_KIND.as_bytes() && fields.0.is_empty() => {
                Self::from_bytes(key).ok_or(KeyError::SmallOrder)
            }
            _ => Err(KeyError::Form),
        }
    }
}

impl SecretKey {
    /// Reads a key in any form, such as the contents of a file.
    pub fn read(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::read_secret(bytes).map_err(|error| match PublicKey::read(bytes) {
            Ok(_) => KeyError::IsPublic,
            Err(_) => error,
        })
    }

    fn read_secret(bytes: &[u8]) -> Result<Self, KeyError> {
        if let Some((&BARE_SECRET, pair)) = bytes.split_first()
            && let Some((seed, public)) = pair.split_first_chunk()
        {
            return Self::from_pair(*seed, public);
        }
        if let Some(seed) = bytes.strip_prefix(&PKCS8_PREFIX)
            && let Ok(seed) = seed.try_into()
        {
            return Ok(Self::from_seed(seed));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| KeyError::Form)?;
        match pem(text) {
            Some(("PRIVATE KEY", der)) => Self::read_secret(&der),
            Some(("ENCRYPTED PRIVATE KEY", _)) => Err(KeyError::Encrypted),
            Some(("OPENSSH PRIVATE KEY", blob)) => Self::from_ssh(&blob),
            _ => Err(KeyError::Form),
        }
    }

    fn from_pair(seed: [u8; 32], public: &[u8]) -> Result<Self, KeyError> {
        let key = Self::from_seed(seed);
        if key.public().bytes()[..] == *public {
            Ok(key)
        } else {
            Err(KeyError::Mismatch)
        }
    }

    fn from_ssh(blob: &[u8]) -> Result<Self, KeyError> {
        let mut fields = SshFields(blob.strip_prefix(SSH_MAGIC).ok_or(KeyError::Form)?);
        let (cipher, derivation) = (fields.string()?, fields.string()?);
        if cipher != b"none" || derivation != b"none" {
            return Err(KeyError::Encrypted);
        }
        fields.string()?;
        if fields.number()? != 1 {
            return Err(KeyError::Form);
        }
        fields.string()?;
        let mut secret = SshFields(fields.string()?);
        let is_whole = secret.number()? == secret.number()?;
        let kind = secret.string()?;
        let public = secret.string()?;
        let pair = secret.string()?;
        match pair.split_first_chunk() {
            Some((seed, rest)) if is_whole && kind == SSH_KIND.as_bytes() && rest == public => {
                Self::from_pair(*seed, public)
            }
            _ => Err(KeyError::Form),
        }
    }

    /// The key as PKCS#8 in PEM, for a file that only its owner reads.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let der = [&PKCS8_PREFIX[..], &self.seed].concat();
        let body = BASE64_STANDARD.encode(der);
        format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
    }
}

/// Label and contents of the only PEM block in a text.
fn pem(text: &str) -> Option<(&str, Vec<u8>)> {
    let (label, rest) = text
        .trim()
        .strip_prefix("-----BEGIN ")?
        .split_once("-----")?;
    let body = rest.strip_suffix("-----")?.strip_suffix(label)?;
    let body = body.strip_suffix("-----END ")?;
    let body: String = body.split_ascii_whitespace().collect();
    let contents = BASE64_STANDARD.decode(body).ok()?;
    Some((label, contents))
}

fn ssh_string(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).expect("a field of a key is short");
    [&len.to_be_bytes(), bytes].concat()
}

/// Fields of OpenSSH's binary form that have not been read.
struct SshFields<'a>(&'a [u8]);

impl<'a> SshFields<'a> {
    fn number(&mut self) -> Result<u32, KeyError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(KeyError::Form)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    fn string(&mut self) -> Result<&'a [u8], KeyError> {
        let len = usize::try_from(self.number()?).map_err(|_| KeyError::Form)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(KeyError::Form)?;
        self.0 = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret() -> SecretKey {
        SecretKey::from_seed([9; 32])
    }

    fn pem_of(label: &str, contents: &[u8]) -> String {
        let body = BASE64_STANDARD.encode(contents);
        format!("-----BEGIN {label}-----\r\n{body}\r\n-----END {label}-----\r\n")
    }

    /// As `ssh-keygen -t ed25519` writes it.
    fn openssh(cipher: &[u8], pair: &[u8]) -> String {
        let public = *secret().public().bytes();
        let inner = [
            &[5, 6, 7, 8, 5, 6, 7, 8][..],
            &ssh_string(SSH_KIND.as_bytes()),
            &ssh_string(&public),
            &ssh_string(pair),
            &ssh_string(b"me@here"),
            &[1, 2, 3],
        ];
        let public = [ssh_string(SSH_KIND.as_bytes()), ssh_string(&public)].concat();
        let blob = [
            SSH_MAGIC,
            &ssh_string(cipher),
            &ssh_string(cipher),
            &ssh_string(b""),
            &1_u32.to_be_bytes(),
            &ssh_string(&public),
            &ssh_string(&inner.concat()),
        ];
        pem_of("OPENSSH PRIVATE KEY", &blob.concat())
    }

    #[test]
    fn a_secret_key_reads_back_from_every_form() {
        let public = secret().public();
        let pair = [&secret().seed[..], public.bytes()].concat();
        let der = [&PKCS8_PREFIX[..], &secret().seed].concat();
        for form in [
            secret().to_pem().as_bytes(),
            pem_of("PRIVATE KEY", &der).as_bytes(),
            &der,
            &[&[BARE_SECRET], &pair[..]].concat(),
            openssh(b"none", &pair).as_bytes(),
        ] {
            assert_eq!(SecretKey::read(form).unwrap().public(), public);
            assert_eq!(PublicKey::read(form), Err(KeyError::IsSecret));
        }
    }

    #[test]
    fn a_public_key_reads_back_from_every_form() {
        let public = secret().public();
        let der = [&SPKI_PREFIX[..], public.bytes()].concat();
        for form in [
            public.to_string().as_bytes(),
            format!("  {public} someone@somewhere\n").as_bytes(),
            pem_of("PUBLIC KEY", &der).as_bytes(),
            &der,
            &[&[BARE_PUBLIC], &public.bytes()[..]].concat(),
        ] {
            assert_eq!(PublicKey::read(form), Ok(public));
            assert_eq!(SecretKey::read(form).unwrap_err(), KeyError::IsPublic);
        }
    }

    #[test]
    fn what_is_wrong_with_a_key_is_said() {
        let pair = [&secret().seed[..], &[0; 32]].concat();
        let check = |form: &[u8], wanted| {
            assert_eq!(SecretKey::read(form).unwrap_err(), wanted);
        };
        check(&[&[BARE_SECRET], &pair[..]].concat(), KeyError::Mismatch);
        check(openssh(b"none", &pair).as_bytes(), KeyError::Form);
        check(
            openssh(b"aes256-ctr", &pair).as_bytes(),
            KeyError::Encrypted,
        );
        check(
            pem_of("ENCRYPTED PRIVATE KEY", b"x").as_bytes(),
            KeyError::Encrypted,
        );
        check(pem_of("RSA PRIVATE KEY", b"x").as_bytes(), KeyError::Form);
        check(b"", KeyError::Form);
        let two = format!("{0}\n{0}\n", secret().public());
        assert_eq!(PublicKey::read(two.as_bytes()), Err(KeyError::Form));
        let other = secret().public().to_string().replace(SSH_KIND, "ssh-rsa");
        assert_eq!(PublicKey::read(other.as_bytes()), Err(KeyError::Form));
        let nobody = [0; 32];
        let blob = [ssh_string(SSH_KIND.as_bytes()), ssh_string(&nobody)].concat();
        let line = format!("{SSH_KIND} {}", BASE64_STANDARD.encode(blob));
        let der = [&SPKI_PREFIX[..], &nobody].concat();
        for form in [
            line.as_bytes(),
            pem_of("PUBLIC KEY", &der).as_bytes(),
            &der,
            &[&[BARE_PUBLIC], &nobody[..]].concat(),
        ] {
            assert_eq!(PublicKey::read(form), Err(KeyError::SmallOrder));
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let shown = format!("{:?}", secret());
        assert_eq!(shown, format!("SecretKey({})", secret().public().id()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120), text in "(ssh-ed25519 |-----BEGIN )?.*") {
            for bytes in [&bytes[..], text.as_bytes(), &pem_of("OPENSSH PRIVATE KEY", &[SSH_MAGIC, &bytes].concat()).into_bytes()] {
                let _ = PublicKey::read(bytes);
                let _ = SecretKey::read(bytes);
            }
        }

        #[test]
        fn a_key_keeps_its_name(seed: [u8; 32]) {
            let key = SecretKey::from_seed(seed).public();
            prop_assert_eq!(key.to_string().parse::<PublicKey>(), Ok(key));
        }
    }
}

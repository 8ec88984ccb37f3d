//! Says of each signature of a file who made it and what it covers.

use std::fmt;

use tidegate_inference::Digest;

use super::data::{ALGORITHM_ED25519, Signature, SignatureData, SignedHashes};
use super::{KeyId, Layout, Part, PublicKey, VerifyError};

/// Who made a signature, as far as the known keys tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// This key; the signature is valid.
    Known(PublicKey),
    /// None of the known keys.
    Unknown {
        /// What the signature calls its key, which may be nothing. It can say anything.
        key_id: Vec<u8>,
    },
    /// It names a known key, and is not by it.
    Forged(KeyId),
    /// An algorithm other than Ed25519.
    Algorithm(u8),
}

/// What a signature covers of the file as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// Every part, to the last byte.
    Whole,
    /// The first parts, of more.
    Beginning {
        /// How many.
        parts: usize,
    },
    /// Every part that is there, and further ones that are not.
    Cut {
        /// How many were signed.
        signed: usize,
    },
    /// Other content.
    Changed {
        /// The first part that differs, counted from 1.
        part: usize,
    },
    /// No part at all.
    Nothing,
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Who made it.
    pub signer: Signer,
    /// What it covers. Worth something only if the signer is known.
    pub coverage: Coverage,
    /// Parts of the file.
    pub parts: usize,
}

/// What the signatures of a file say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The parts of the file.
    pub parts: Vec<Part>,
    /// Each signature; empty for a file that is not signed.
    pub statements: Vec<Statement>,
}

/// Looks at every signature of a file: those in it, or `detached` instead where that is given.
///
/// Fails only if something is malformed. An unsigned file and unknown signers are in the report.
pub fn verify(
    wasm: &[u8],
    detached: Option<&[u8]>,
    keys: &[PublicKey],
) -> Result<Report, VerifyError> {
    let layout = Layout::of(wasm)?;
    let embedded = layout.signature().map(|range| &wasm[range]);
    let data = match detached.or(embedded) {
        Some(bytes) => SignatureData::decode(bytes)?,
        None => SignatureData::default(),
    };
    let parts = layout.parts().to_vec();
    let mut statements = Vec::new();
    for list in &data.lists {
        let coverage = coverage(&list.hashes, &parts);
        let message = list.message();
        statements.extend(list.signatures.iter().map(|signature| Statement {
            signer: signer(signature, &message, keys),
            coverage,
            parts: parts.len(),
        }));
    }
    Ok(Report { parts, statements })
}

/// What a signature of these hashes covers of these parts.
fn coverage(hashes: &[Digest], parts: &[Part]) -> Coverage {
    let mut covered = 0;
    for (index, hash) in hashes.iter().enumerate() {
        match parts[covered..].iter().position(|part| part.hash == *hash) {
            Some(further) => covered += further + 1,
            None if covered == parts.len() => {
                let signed = covered + hashes.len() - index;
                return Coverage::Cut { signed };
            }
            None => return Coverage::Changed { part: covered + 1 },
        }
    }
    match covered {
        0 => Coverage::Nothing,
        all if all == parts.len() => Coverage::Whole,
        parts => Coverage::Beginning { parts },
    }
}

fn signer(signature: &Signature, message: &[u8], keys: &[PublicKey]) -> Signer {
    if signature.algorithm != ALGORITHM_ED25519 {
        return Signer::Algorithm(signature.algorithm);
    }
    let verifies = |key: &&PublicKey| key.verifies(message, &signature.bytes);
    // Whoever signed chose the key's name, so a name that is not a known key's says nothing.
    match keys.iter().find(|key| key.id().0[..] == signature.key_id) {
        Some(named) if verifies(&named) => Signer::Known(*named),
        Some(named) => Signer::Forged(named.id()),
        None => match keys.iter().find(verifies) {
            Some(key) => Signer::Known(*key),
            None => Signer::Unknown {
                key_id: signature.key_id.clone(),
            },
        },
    }
}

impl SignedHashes {
    /// Whether `key` signed this list.
    pub(super) fn is_signed_by(&self, key: &PublicKey) -> bool {
        let message = self.message();
        self.signatures
            .iter()
            .any(|signature| signer(signature, &message, &[*key]) == Signer::Known(*key))
    }
}

impl Report {
    /// The distinct known keys that signed every part.
    #[must_use]
    pub fn signers(&self) -> Vec<PublicKey> {
        let mut signers = Vec::new();
        for statement in &self.statements {
            if let (Signer::Known(key), Coverage::Whole) = (&statement.signer, statement.coverage)
                && !signers.contains(key)
            {
                signers.push(*key);
            }
        }
        signers
    }

    /// The distinct known keys that signed every part, if there are at least `threshold`.
    pub fn require(&self, threshold: usize) -> Result<Vec<PublicKey>, VerifyError> {
        if self.statements.is_empty() && threshold > 0 {
            return Err(VerifyError::Unsigned);
        }
        let signers = self.signers();
        if signers.len() >= threshold {
            return Ok(signers);
        }
        let mut reasons: Vec<String> = Vec::new();
        for statement in &self.statements {
            let reason = statement.to_string();
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        Err(VerifyError::TooFew {
            got: signers.len(),
            wanted: threshold,
            reasons: reasons.join("; "),
        })
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(key) => write!(f, "key {}", key.id()),
            Self::Unknown { key_id } if key_id.is_empty() => f.write_str("a key without a name"),
            Self::Unknown { key_id } => {
                f.write_str("key ")?;
                let shown = &key_id[..key_id.len().min(32)];
                shown.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Forged(id) => write!(f, "key {id}"),
            Self::Algorithm(algorithm) => write!(f, "algorithm {algorithm}"),
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            signer,
            coverage,
            parts,
        } = self;
        match signer {
            Signer::Known(_) => {}
            Signer::Unknown { .. } => return write!(f, "{signer} is not known"),
            Signer::Forged(_) => return write!(f, "a signature names {signer}, but is not by it"),
            Signer::Algorithm(_) => return write!(f, "a signature has {signer}, not Ed25519"),
        }
        match coverage {
            Coverage::Changed { part } => {
                write!(f, "part {part} of {parts} is not what {signer} signed")
            }
            Coverage::Whole
            | Coverage::Beginning { .. }
            | Coverage::Cut { .. }
            | Coverage::Nothing => write!(f, "{signer} signed {}", self.covered()),
        }
    }
}

impl Statement {
    /// What the signature covers, in words.
    #[must_use]
    pub fn covered(&self) -> String {
        let parts = self.parts;
        match self.coverage {
            Coverage::Whole if parts == 1 => "the whole file".to_owned(),
            Coverage::Whole => format!("all {parts} parts"),
            Coverage::Beginning { parts: signed } => {
                format!("the first {signed} of {parts} parts, not what follows")
            }
            Coverage::Cut { signed } => format!(
                "{signed} parts, of which the last are missing: the file ends after {parts}"
            ),
            Coverage::Changed { part } => format!("other content: part {part} of {parts} differs"),
            Coverage::Nothing => "a list of no parts".to_owned(),
        }
    }
}

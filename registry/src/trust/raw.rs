//! The `[trust]` table as written, and how it becomes a policy.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tidegate_inference::Isolation;

use super::{ParseNamePatternError, Rule, TrustPolicy};
use crate::signature::{KEY_FILE_BYTES_MAX, KeyError, PublicKey};

/// Most rules of a policy.
pub const RULES_MAX: usize = 256;

/// Most keys of a rule: with the most signatures of a file, a quarter of a second to try them all.
pub const KEYS_MAX: usize = 64;

/// Most name patterns of a rule.
pub const NAMES_MAX: usize = 256;

/// What a key that is written in the table itself begins with.
const INLINE_PREFIX: &str = "ssh-ed25519 ";

/// `[trust]` as written in a configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawTrust {
    /// Whether modules run of which no rule speaks.
    #[serde(default)]
    pub allow_unsigned: bool,
    /// `[[trust.rules]]`, the first that matches decides.
    #[serde(default)]
    pub rules: Vec<RawRule>,
}

/// One of `[[trust.rules]]` as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawRule {
    /// Patterns of module names.
    pub names: Vec<String>,
    /// Public keys: files, or lines that begin with `ssh-ed25519`.
    #[serde(default)]
    pub keys: Vec<String>,
    /// How many of the keys must sign.
    #[serde(default = "one")]
    pub threshold: usize,
    /// Forces `strict` on modules that do not ask for it.
    #[serde(default)]
    pub isolation: Isolation,
}

fn one() -> usize {
    1
}

/// Why `[trust]` is not a policy. `rule` counts from 1.
#[derive(Debug, thiserror::Error)]
pub enum TrustPolicyError {
    /// More of something than a limit allows, or nothing where something must be.
    #[error("{place} has {got} {what}, must have 1 to {limit}")]
    Count {
        /// Where: `[trust]`, or a rule.
        place: String,
        /// Of what.
        what: &'static str,
        /// How many.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// A name pattern that is none.
    #[error("rule {rule} of [trust] has a bad name")]
    Name {
        /// The rule.
        rule: usize,
        /// What is wrong with it.
        source: ParseNamePatternError,
    },
    /// A rule that never decides.
    #[error(
        "rule {rule} of [trust] never decides: rule {earlier} has all of its names, and comes first"
    )]
    Hidden {
        /// The rule.
        rule: usize,
        /// The rule that hides it.
        earlier: usize,
    },
    /// A key file that cannot be read.
    #[error("rule {rule} of [trust]: cannot read key {}", path.display())]
    ReadKey {
        /// The rule.
        rule: usize,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A key that is none.
    #[error("rule {rule} of [trust]: cannot use key {key:?}")]
    Key {
        /// The rule.
        rule: usize,
        /// As written in the table.
        key: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// One key twice in a rule.
    #[error("rule {rule} of [trust] has key {key:?} twice")]
    DuplicateKey {
        /// The rule.
        rule: usize,
        /// As written in the table, the second time.
        key: String,
    },
    /// More signatures wanted than there are keys, or none although there are keys.
    #[error(
        "rule {rule} of [trust] has threshold {threshold}, must have 1 to {keys}, the number of its keys"
    )]
    Threshold {
        /// The rule.
        rule: usize,
        /// Its threshold.
        threshold: usize,
        /// Its keys.
        keys: usize,
    },
    /// Unsigned modules in a rule, but not in the table.
    #[error("rule {rule} of [trust] has threshold 0, which needs allow-unsigned = true")]
    Unsigned {
        /// The rule.
        rule: usize,
    },
}

impl TrustPolicy {
    /// Reads a table and the key files that it names; relative paths are taken from `folder`.
    pub fn from_raw(raw: &RawTrust, folder: &Path) -> Result<Self, TrustPolicyError> {
        if raw.rules.len() > RULES_MAX {
            return Err(TrustPolicyError::Count {
                place: "[trust]".to_owned(),
                what: "rules",
                got: raw.rules.len(),
                limit: RULES_MAX,
            });
        }
        let mut rules: Vec<Rule> = Vec::with_capacity(raw.rules.len());
        for (index, raw_rule) in raw.rules.iter().enumerate() {
            let rule = parse_rule(raw_rule, index + 1, raw.allow_unsigned, folder)?;
            let hides = |earlier: &Rule| {
                let covered = |name| earlier.names.iter().any(|wide| wide.covers(name));
                rule.names.iter().all(covered)
            };
            if let Some(earlier) = rules.iter().position(hides) {
                return Err(TrustPolicyError::Hidden {
                    rule: index + 1,
                    earlier: earlier + 1,
                });
            }
            rules.push(rule);
        }
        Ok(Self {
            allow_unsigned: raw.allow_unsigned,
            rules,
        })
    }
}

fn parse_rule(
    raw: &RawRule,
    rule: usize,
    allow_unsigned: bool,
    folder: &Path,
) -> Result<Rule, TrustPolicyError> {
    let count = |what, got, limit| TrustPolicyError::Count {
        place: format!("rule {rule} of [trust]"),
        what,
        got,
        limit,
    };
    if raw.names.is_empty() || raw.names.len() > NAMES_MAX {
        return Err(count("names", raw.names.len(), NAMES_MAX));
    }
    let names = raw.names.iter().map(|name| name.parse());
    let names = names
        .collect::<Result<_, _>>()
        .map_err(|source| TrustPolicyError::Name { rule, source })?;
    let is_unsigned = raw.threshold == 0 && raw.keys.is_empty();
    if is_unsigned && !allow_unsigned {
        return Err(TrustPolicyError::Unsigned { rule });
    }
    if raw.keys.len() > KEYS_MAX || (raw.keys.is_empty() && !is_unsigned) {
        return Err(count("keys", raw.keys.len(), KEYS_MAX));
    }
    let mut keys = Vec::with_capacity(raw.keys.len());
    for written in &raw.keys {
        let key = read_key(written, rule, folder)?;
        if keys.contains(&key) {
            let key = written.clone();
            return Err(TrustPolicyError::DuplicateKey { rule, key });
        }
        keys.push(key);
    }
    if !is_unsigned && !(1..=keys.len()).contains(&raw.threshold) {
        return Err(TrustPolicyError::Threshold {
            rule,
            threshold: raw.threshold,
            keys: keys.len(),
        });
    }
    Ok(Rule {
        names,
        keys,
        threshold: raw.threshold,
        isolation: raw.isolation,
    })
}

fn read_key(written: &str, rule: usize, folder: &Path) -> Result<PublicKey, TrustPolicyError> {
    let key = if written.starts_with(INLINE_PREFIX) {
        written.parse()
    } else {
        let path = folder.join(written);
        let read = || {
            // Opening a pipe would wait for a writer that may never come.
            if !path.metadata()?.is_file() {
                return Err(io::Error::other("it is not a regular file"));
            }
            let mut bytes = Vec::new();
            File::open(&path)?
                .take(KEY_FILE_BYTES_MAX as u64)
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|source| {
            let path = path.clone();
            TrustPolicyError::ReadKey { rule, path, source }
        })?;
        PublicKey::read(&bytes)
    };
    key.map_err(|source| TrustPolicyError::Key {
        rule,
        key: written.to_owned(),
        source,
    })
}

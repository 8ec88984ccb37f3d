//! Which modules may run: the `[trust]` table of both daemons.
//!
//! The first rule one of whose name patterns matches a module's name decides, alone: its keys count, its
//! threshold is wanted, and no later rule helps or hinders. So a table is read from its top, narrow
//! patterns before wide ones; a rule that an earlier one hides completely is refused when the table is
//! read. A name of which no rule speaks runs only with `allow-unsigned = true`, and then without a look
//! at signatures, since whoever can change a signature can take it away.
//!
//! `allow-unsigned` does not weaken a rule: a module that a rule speaks of must be signed, else taking its
//! signature away would be enough to run anything under its name. A rule with `threshold = 0` and no keys
//! says on purpose that certain names run unsigned, perhaps in strict isolation.

mod pattern;
mod raw;
mod seen;

use tidegate_inference::Isolation;

pub use self::pattern::{NamePattern, ParseNamePatternError};
pub use self::raw::{KEYS_MAX, NAMES_MAX, RULES_MAX, RawRule, RawTrust, TrustPolicyError};
pub use self::seen::{RollbackError, SEEN_MAX, SeenError, SeenVersions};
use crate::signature::{PublicKey, VerifyError, verify};

/// Which modules may run, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustPolicy {
    allow_unsigned: bool,
    rules: Vec<Rule>,
}

/// Who must sign modules of certain names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    names: Vec<NamePattern>,
    keys: Vec<PublicKey>,
    threshold: usize,
    isolation: Isolation,
}

/// A module that may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// The keys of the rule that signed all of it; empty if it may run unsigned.
    pub signers: Vec<PublicKey>,
    /// At least how isolated it must run. What its manifest asks for holds if that is more.
    pub isolation: Isolation,
    /// Number of the rule that decided, counted from 1; `None` if no rule speaks of the name.
    pub rule: Option<usize>,
}

/// Why a module may not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// No rule speaks of its name, and unsigned modules are not allowed.
    #[error(
        "no rule of [trust] names module {name:?} (version {version}), and allow-unsigned is false"
    )]
    NoRule {
        /// The module.
        name: String,
        /// Its version.
        version: String,
    },
    /// It is not signed as the rule wants.
    #[error("module {name:?} (version {version}) is not trusted by rule {rule} of [trust]")]
    Rule {
        /// The module.
        name: String,
        /// Its version.
        version: String,
        /// Number of the rule, counted from 1.
        rule: usize,
        /// What is missing or wrong.
        source: VerifyError,
    },
}

impl TrustPolicy {
    /// Every module may run, whoever made it: what `allow-unsigned = true` alone says.
    #[must_use]
    pub fn allow_all() -> Self {
        Self {
            allow_unsigned: true,
            rules: Vec::new(),
        }
    }

    /// Whether a rule wants signatures of anybody. They stay valid for ever, so that whoever relies on them has
    /// to remember which versions are out of date.
    #[must_use]
    pub fn wants_signatures(&self) -> bool {
        self.rules.iter().any(|rule| rule.threshold > 0)
    }

    /// Whether a module of this name and version, as its manifest says, may run. `wasm` is the whole file.
    ///
    /// Hashes all of it where a rule wants signatures: a second a gigabyte, so not on an async executor.
    pub fn check(&self, name: &str, version: &str, wasm: &[u8]) -> Result<Trusted, TrustError> {
        let is_of = |rule: &Rule| rule.names.iter().any(|pattern| pattern.matches(name));
        let Some(index) = self.rules.iter().position(is_of) else {
            if self.allow_unsigned {
                return Ok(Trusted {
                    signers: Vec::new(),
                    isolation: Isolation::Host,
                    rule: None,
                });
            }
            return Err(TrustError::NoRule {
                name: name.to_owned(),
                version: version.to_owned(),
            });
        };
        let Rule {
            keys,
            threshold,
            isolation,
            names: _,
        } = &self.rules[index];
        let rule = index + 1;
        let signers = if *threshold == 0 {
            Vec::new()
        } else {
            verify(wasm, None, keys)
                .and_then(|report| report.require(*threshold))
                .map_err(|source| TrustError::Rule {
                    name: name.to_owned(),
                    version: version.to_owned(),
                    rule,
                    source,
                })?
        };
        Ok(Trusted {
            signers,
            isolation: *isolation,
            rule: Some(rule),
        })
    }
}

#[cfg(test)]
mod tests;

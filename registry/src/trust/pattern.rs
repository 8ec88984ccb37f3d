//! Patterns of module names: text in which `*` stands for any text, also none.

use std::fmt;
use std::str::FromStr;

use tidegate_inference::NAME_BYTES_MAX;

/// A pattern of module names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(String);

/// Text that is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no pattern of names: 1 to 128 letters, digits, '.', '_', '-', or '*' for any text"
)]
pub struct ParseNamePatternError(pub String);

impl FromStr for NamePattern {
    type Err = ParseNamePatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-*".contains(c);
        if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.chars().all(is_plain) {
            return Err(ParseNamePatternError(text.chars().take(64).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl NamePattern {
    /// Whether all of `name` fits.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut pieces = self.0.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = pieces.next_back() else {
            return rest.is_empty();
        };
        // The leftmost place of each piece leaves most room for those behind it.
        for piece in pieces {
            match rest.find(piece) {
                Some(at) => rest = &rest[at + piece.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }

    /// Whether every name that fits `other` fits this: a `*` of `other` then stands where one of these does.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> NamePattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (text, names, others) in [
            ("*", &["a", "", "a.b"][..], &[][..]),
            ("face", &["face"], &["faces", "a-face", "Face", ""]),
            (
                "vision-*",
                &["vision-", "vision-a-b"],
                &["vision", "a-vision-a"],
            ),
            ("*-v2", &["a-v2", "-v2", "-v2-v2"], &["a-v2x", "v2"]),
            ("a*b*c", &["abc", "a-b-c", "abbcbc"], &["ab", "acb", "abcd"]),
            ("ab*ba", &["abba", "ab-ba"], &["aba", "ab"]),
            ("a**b", &["ab", "axb"], &["a"]),
        ] {
            for name in names {
                assert!(pattern(text).matches(name), "{text} {name}");
            }
            for name in others {
                assert!(!pattern(text).matches(name), "{text} {name}");
            }
        }
    }

    #[test]
    fn only_what_a_name_can_hold_is_a_pattern() {
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        for bad in ["", "a b", "a?", "[ab]", "ä*", "a/b", &long] {
            assert!(bad.parse::<NamePattern>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_matches_as_its_regular_expression_does(text in "[ab*]{1,8}", name in "[ab]{0,10}") {
            prop_assert_eq!(pattern(&text).matches(&name), slowly(text.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn a_pattern_that_covers_another_matches_all_that_it_does(
            one in "[ab*]{1,6}", two in "[ab*]{1,6}", name in "[ab]{0,8}",
        ) {
            if pattern(&one).covers(&pattern(&two)) && pattern(&two).matches(&name) {
                prop_assert!(pattern(&one).matches(&name));
            }
        }
    }

    /// The definition, tried in every way.
    fn slowly(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|at| slowly(rest, &name[at..])),
            Some((first, rest)) => name.first() == Some(first) && slowly(rest, &name[1..]),
        }
    }
}

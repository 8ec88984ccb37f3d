//! The order of model versions, so that nothing older than what was seen runs again.
//!
//! A version is what semantic versioning has, with less ceremony: one or more numbers joined by dots,
//! then perhaps `-` and a pre-release, then perhaps `+` and build metadata. Numbers that are missing
//! count as zero, so `1`, `1.0` and `1.0.0` are the same version, and so is `1.0.0+build.7`. A
//! pre-release comes before its release: `1.0.0-rc1 < 1.0.0`. Two pre-releases compare by the parts
//! between their dots: a number by its value and before any text, text by its bytes, and the shorter
//! list first where it is the beginning of the longer.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Longest version, in bytes.
pub const VERSION_BYTES_MAX: usize = 256;

/// A version with an order. Equal versions may differ in text: `1.0` equals `1.0.0+a`.
#[derive(Clone, Debug)]
pub struct Version {
    text: String,
}

/// Text that is not a version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("version {0:?} does not look like 1.4.0 or 1.4.0-rc.1")]
pub struct ParseVersionError(pub String);

impl FromStr for Version {
    type Err = ParseVersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let version = Self {
            text: text.to_owned(),
        };
        let Parts {
            numbers,
            pre,
            build,
        } = version.parts();
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let is_word = |part: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            !part.is_empty() && part.bytes().all(plain)
        };
        let words = |list: Option<&str>| list.is_none_or(|list| list.split('.').all(is_word));
        let is_good = text.len() <= VERSION_BYTES_MAX
            && numbers.split('.').all(is_number)
            && words(pre)
            && words(build);
        if is_good {
            Ok(version)
        } else {
            Err(ParseVersionError(text.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

struct Parts<'a> {
    numbers: &'a str,
    pre: Option<&'a str>,
    build: Option<&'a str>,
}

impl Version {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn parts(&self) -> Parts<'_> {
        let (rest, build) = match self.text.split_once('+') {
            Some((rest, build)) => (rest, Some(build)),
            None => (&*self.text, None),
        };
        let (numbers, pre) = match rest.split_once('-') {
            Some((numbers, pre)) => (numbers, Some(pre)),
            None => (rest, None),
        };
        Parts {
            numbers,
            pre,
            build,
        }
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, two) = (self.parts(), other.parts());
        compare_releases(one.numbers, two.numbers).then_with(|| match (one.pre, two.pre) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(one), Some(two)) => compare_pre_releases(one, two),
        })
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

fn compare_releases(one: &str, two: &str) -> Ordering {
    let (mut one, mut two) = (one.split('.'), two.split('.'));
    loop {
        let (a, b) = match (one.next(), two.next()) {
            (None, None) => return Ordering::Equal,
            (a, b) => (a.unwrap_or("0"), b.unwrap_or("0")),
        };
        match compare_numbers(a, b) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
}

fn compare_pre_releases(one: &str, two: &str) -> Ordering {
    let (mut one, mut two) = (one.split('.'), two.split('.'));
    loop {
        let (a, b) = match (one.next(), two.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => (a, b),
        };
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let order = match (is_number(a), is_number(b)) {
            (true, true) => compare_numbers(a, b),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => a.cmp(b),
        };
        match order {
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
}

/// Compares runs of digits of any length by their value.
fn compare_numbers(one: &str, two: &str) -> Ordering {
    let (one, two) = (one.trim_start_matches('0'), two.trim_start_matches('0'));
    one.len().cmp(&two.len()).then_with(|| one.cmp(two))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_are_in_order() {
        let ascending = [
            "0",
            "0.0.1-a",
            "0.0.1",
            "0.9",
            "0.10",
            "1-0",
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.0.1",
            "1.0.1",
            "1.2",
            "1.10",
            "2.0.0-rc1",
            "2",
            "20251125",
            "99999999999999999999999",
            "100000000000000000000000",
        ];
        for (at, one) in ascending.iter().enumerate() {
            for (of, two) in ascending.iter().enumerate() {
                assert_eq!(version(one).cmp(&version(two)), at.cmp(&of), "{one} {two}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_zero_and_build_metadata_has_no_order() {
        for (one, two) in [
            ("1", "1.0"),
            ("1", "1.0.0"),
            ("01.2", "1.02.0"),
            ("1.0.0+a", "1.0.0+b"),
            ("1+a-b", "1.0"),
            ("1-rc.01", "1.0-rc.1"),
        ] {
            assert_eq!(version(one), version(two), "{one} {two}");
        }
    }

    #[test]
    fn what_has_no_order_is_no_version() {
        let long = format!("1.{}", "0".repeat(VERSION_BYTES_MAX));
        for bad in [
            "", "latest", "v1", "1.", ".1", "1..0", "1.0rc1", "1.x", "1-", "1+", "1-a..b", "1+a+b",
            "-1", " 1", "1 ", "1.0-ü", "1/2", "１", &long,
        ] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_the_order_is_total(texts in prop::collection::vec("[0-9.+a-]{0,8}", 3)) {
            let known: Vec<Version> = texts.iter().filter_map(|text| text.parse().ok()).collect();
            if let [a, b, c] = &known[..] {
                prop_assert_eq!(a.cmp(b), b.cmp(a).reverse());
                if a <= b && b <= c {
                    prop_assert!(a <= c);
                }
            }
        }

        #[test]
        fn any_string_is_read_or_refused(text in ".*") {
            if let Ok(version) = text.parse::<Version>() {
                prop_assert_eq!(version.to_string(), text);
            }
        }
    }
}

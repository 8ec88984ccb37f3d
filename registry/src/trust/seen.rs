//! The highest version of each module that proved itself here, so that no older one runs again.
//!
//! A signature stays valid for ever: whoever can choose which file an agent gets could give it an old
//! version with a known fault. So an agent remembers, across restarts, the highest version by name. The
//! file carries a checksum: one that was cut or changed is an error that names it, never a fresh start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use tidegate_inference::{Digest, NAME_BYTES_MAX, ParseVersionError, Version};

/// Most names that are remembered: an agent serves 64 at a time.
pub const SEEN_MAX: usize = 4096;

/// Longest file: every name and version at its longest.
const FILE_BYTES_MAX: usize =
    SEEN_MAX * (NAME_BYTES_MAX + tidegate_inference::VERSION_BYTES_MAX + 8) + 1024;

const FORMAT: u32 = 1;

/// Why the highest versions are not known, or cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SeenError {
    /// The file is there and cannot be read.
    #[error("cannot read the highest versions that proved themselves from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error(
        "{} is damaged: {reason}; it keeps modules from being rolled back, so restore it, or remove it to \
         begin anew",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In what way.
        reason: String,
    },
    /// The file cannot be written. What it held, it still holds.
    #[error("cannot write the highest versions that proved themselves to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// More than [`SEEN_MAX`] names.
    #[error("{} has no room for the version of {name:?}: it holds {SEEN_MAX} names", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// The module.
        name: String,
    },
}

/// Why a version may not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RollbackError {
    /// A higher one proved itself here.
    #[error(
        "module {name:?} is version {got}, but version {seen} proved itself here before: versions never go back"
    )]
    Older {
        /// The module.
        name: String,
        /// Its version.
        got: String,
        /// The highest that proved itself.
        seen: String,
    },
    /// It has no order.
    #[error("module {name:?} cannot be compared with what proved itself here")]
    Version {
        /// The module.
        name: String,
        /// What is wrong with its version.
        source: ParseVersionError,
    },
}

/// The highest version of each name, and the file that keeps them. One process has it open at a time.
#[derive(Debug)]
pub struct SeenVersions {
    path: PathBuf,
    seen: BTreeMap<String, Version>,
    /// Whether the file holds `seen`.
    is_kept: bool,
}

/// The file as written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    format: u32,
    /// Highest version by name.
    seen: BTreeMap<String, String>,
    /// SHA-256 of `seen` as compact JSON.
    checksum: String,
}

impl SeenVersions {
    /// Reads the file at `path`, usually `seen.json` in the state folder. Without a file nothing was seen.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, SeenError> {
        let path = path.into();
        let (seen, is_kept) = match read(&path) {
            Ok(bytes) => match parse(&bytes) {
                Ok(seen) => (seen, true),
                Err(reason) => return Err(SeenError::Damaged { path, reason }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => (BTreeMap::new(), false),
            Err(source) => return Err(SeenError::Read { path, source }),
        };
        Ok(Self {
            path,
            seen,
            is_kept,
        })
    }

    /// The highest version of `name` that was recorded.
    #[must_use]
    pub fn highest(&self, name: &str) -> Option<&Version> {
        self.seen.get(name)
    }

    /// Refuses a version below the highest that was recorded. Records nothing.
    pub fn check(&self, name: &str, version: &str) -> Result<(), RollbackError> {
        let got = parse_version(name, version)?;
        match self.highest(name) {
            Some(seen) if got < *seen => Err(RollbackError::Older {
                name: name.to_owned(),
                got: version.to_owned(),
                seen: seen.to_string(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Records that a version proved itself, if it is the highest. On return it is on the disk.
    ///
    /// What cannot be written counts for as long as this lives, and is written with what comes next. A version
    /// that is not above the recorded one, or has no order, changes nothing.
    pub fn record(&mut self, name: &str, version: &str) -> Result<(), SeenError> {
        let Ok(version) = version.parse::<Version>() else {
            return Ok(());
        };
        match self.seen.get(name) {
            Some(before) if version <= *before => return Ok(()),
            None if self.seen.len() >= SEEN_MAX => {
                let (path, name) = (self.path.clone(), name.to_owned());
                return Err(SeenError::Full { path, name });
            }
            Some(_) | None => {}
        }
        self.seen.insert(name.to_owned(), version);
        self.is_kept = false;
        self.keep()
    }

    /// Makes sure that all of it is on the disk, if only as a file that says that nothing was seen.
    pub fn keep(&mut self) -> Result<(), SeenError> {
        if self.is_kept {
            return Ok(());
        }
        tidegate_store::write_whole(&self.path, &self.written()).map_err(|source| {
            let path = self.path.clone();
            SeenError::Write { path, source }
        })?;
        self.is_kept = true;
        Ok(())
    }

    fn written(&self) -> Vec<u8> {
        let text = |(name, version): (&String, &Version)| (name.clone(), version.to_string());
        let seen: BTreeMap<_, _> = self.seen.iter().map(text).collect();
        let checksum = checksum(&seen);
        let written = Written {
            format: FORMAT,
            seen,
            checksum,
        };
        let mut bytes = serde_json::to_vec_pretty(&written).expect("text becomes JSON");
        bytes.push(b'\n');
        bytes
    }
}

fn parse_version(name: &str, version: &str) -> Result<Version, RollbackError> {
    version.parse().map_err(|source| RollbackError::Version {
        name: name.to_owned(),
        source,
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Version>, String> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!("it has more than {FILE_BYTES_MAX} bytes"));
    }
    let written: Written = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if written.format != FORMAT {
        let got = written.format;
        return Err(format!("its format is {got}, this version reads {FORMAT}"));
    }
    if checksum(&written.seen) != written.checksum {
        return Err("its checksum is not that of its contents".to_owned());
    }
    if written.seen.len() > SEEN_MAX {
        return Err(format!("it has more than {SEEN_MAX} names"));
    }
    let version = |(name, text): (String, String)| match text.parse() {
        Ok(version) => Ok((name, version)),
        Err(error) => Err(format!("{name:?}: {error}")),
    };
    written.seen.into_iter().map(version).collect()
}

fn checksum(seen: &BTreeMap<String, String>) -> String {
    let json = serde_json::to_vec(seen).expect("text becomes JSON");
    let hash = digest(&SHA256, &json);
    Digest(hash.as_ref().try_into().expect("SHA-256 has 32 bytes")).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_runs_below_the_highest_version_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen.json");
        let mut seen = SeenVersions::open(&path).unwrap();
        seen.check("face", "1.4.0").unwrap();
        assert!(!path.exists());
        seen.record("face", "1.4.0").unwrap();
        seen.record("face", "1.3.9").unwrap();
        for seen in [seen, SeenVersions::open(&path).unwrap()] {
            for good in ["1.4", "1.4.0+build", "1.4.1", "2.0.0-rc1"] {
                seen.check("face", good).unwrap();
            }
            seen.check("other", "0.1").unwrap();
            let error = seen.check("face", "1.4.0-rc1").unwrap_err().to_string();
            for named in ["face", "1.4.0-rc1", "1.4.0 proved itself"] {
                assert!(error.contains(named), "{error}");
            }
            assert!(matches!(
                seen.check("face", "x"),
                Err(RollbackError::Version { .. })
            ));
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seen.json");
        SeenVersions::open(&path)
            .unwrap()
            .record("face", "1.4.0")
            .unwrap();
        let good = std::fs::read(&path).unwrap();
        let text = String::from_utf8(good.clone()).unwrap();
        for bad in [
            String::new(),
            text[..text.len() / 2].to_owned(),
            text.replace("1.4.0", "1.3.0"),
            text.replace("face", "fase"),
            text.replace("\"format\": 1", "\"format\": 2"),
            text.replace("sha256:", "sha256:0"),
            "{}".to_owned(),
        ] {
            assert_ne!(bad, text);
            std::fs::write(&path, &bad).unwrap();
            let error = SeenVersions::open(&path).unwrap_err();
            assert!(matches!(error, SeenError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("seen.json"), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), bad.as_bytes());
        }
        std::fs::write(&path, &good).unwrap();
        SeenVersions::open(&path).unwrap();
    }

    #[test]
    fn a_version_that_cannot_be_written_counts_and_is_written_later() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("state");
        let path = folder.join("seen.json");
        let mut seen = SeenVersions::open(&path).unwrap();
        assert!(matches!(seen.keep(), Err(SeenError::Write { .. })));
        std::fs::create_dir(&folder).unwrap();
        seen.record("face", "1").unwrap();
        let away = outer.path().join("away");
        std::fs::rename(&folder, &away).unwrap();
        for version in ["2", "3"] {
            let error = seen.record("face", version).unwrap_err();
            assert!(matches!(error, SeenError::Write { .. }), "{error}");
        }
        assert!(seen.check("face", "2").is_err());
        std::fs::rename(&away, &folder).unwrap();
        SeenVersions::open(&path)
            .unwrap()
            .check("face", "1")
            .unwrap();
        seen.keep().unwrap();
        assert!(
            SeenVersions::open(&path)
                .unwrap()
                .check("face", "2")
                .is_err()
        );
    }

    #[test]
    fn a_folder_in_the_place_of_the_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = SeenVersions::open(folder.path()).unwrap_err();
        assert!(matches!(error, SeenError::Read { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\{.*\\}") {
            let _ = parse(&bytes);
            let _ = parse(text.as_bytes());
        }
    }
}

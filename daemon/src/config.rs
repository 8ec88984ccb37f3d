//! Reads a configuration file, so that each error names the file, the line and the key.
//!
//! A daemon declares the file as written with serde, each value that has a range in a [`Spanned`], and
//! takes what is meant from it through [`Source`]: a default where the key is absent, a checked value
//! where it is there, relative paths from the folder of the file.

use std::fmt::Display;
use std::io::{self, Read as _};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use tidegate_inference::NAME_BYTES_MAX;

pub use toml::Spanned;

use crate::state::{STATE_BYTES_MAX, STATE_BYTES_MIN, StateConfig};

/// Longest configuration file that is read: thousands of times what every key takes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or is longer than [`CONFIG_BYTES_MAX`].
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The configuration file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML, has a key that does not exist, or a value of the wrong type.
    #[error("{}: {}", path.display(), error.to_string().trim_end())]
    Parse {
        /// The configuration file.
        path: PathBuf,
        /// Where and what, with the line quoted.
        error: Box<toml::de::Error>,
    },
    /// A value is of the right type and still cannot be meant.
    #[error("{}: line {line}: {key}: {problem}", path.display())]
    Value {
        /// The configuration file.
        path: PathBuf,
        /// Line of the value, from 1.
        line: usize,
        /// The key, with its table.
        key: &'static str,
        /// What is wrong with the value.
        problem: String,
    },
    /// A key is needed and not there.
    #[error("{}: {key} is missing: {why}", path.display())]
    Missing {
        /// The configuration file.
        path: PathBuf,
        /// The key, with its table.
        key: &'static str,
        /// What needs it.
        why: &'static str,
    },
    /// A file that the configuration names cannot be used.
    #[error("{}: line {line}: {key}", path.display())]
    File {
        /// The configuration file.
        path: PathBuf,
        /// Line of the value, from 1.
        line: usize,
        /// The key, with its table.
        key: &'static str,
        /// Which file, where in it, and what.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The text of the configuration file at `path`.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    read_bounded(path, CONFIG_BYTES_MAX).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The text of a file, refused where it is longer than `bytes_max`. Never reads more.
pub fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    let mut file = std::fs::File::open(path)?.take(bytes_max + 1);
    let len = file.read_to_string(&mut text)?;
    if u64::try_from(len).is_ok_and(|len| len <= bytes_max) {
        return Ok(text);
    }
    let message = format!("it is longer than {bytes_max} bytes");
    Err(io::Error::new(io::ErrorKind::FileTooLarge, message))
}

/// A configuration's text, and the file that it is from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The whole text.
    pub text: &'a str,
    /// Where it is from; relative paths in it are taken from the folder of this.
    pub path: &'a Path,
}

impl Source<'_> {
    /// The file as written, by its keys and types.
    pub fn parse<T: DeserializeOwned>(self) -> Result<T, ConfigError> {
        toml::from_str(self.text).map_err(|error| ConfigError::Parse {
            path: self.path.to_owned(),
            error: Box::new(error),
        })
    }

    /// A whole number in `range`, or `default`.
    pub fn whole<N: Copy + Display + PartialOrd + TryFrom<u64>>(
        self,
        key: &'static str,
        written: &Option<Spanned<u64>>,
        default: N,
        range: RangeInclusive<N>,
    ) -> Result<N, ConfigError> {
        let Some(written) = written else {
            return Ok(default);
        };
        let value = *written.get_ref();
        let meant = N::try_from(value)
            .ok()
            .filter(|meant| range.contains(meant));
        meant.ok_or_else(|| {
            let problem = format!("must be {} to {}, not {value}", range.start(), range.end());
            self.value(key, written.span(), problem)
        })
    }

    /// A number in `range`, or `default`.
    pub fn real(
        self,
        key: &'static str,
        written: &Option<Spanned<f64>>,
        default: f64,
        range: RangeInclusive<f64>,
    ) -> Result<f64, ConfigError> {
        let Some(written) = written else {
            return Ok(default);
        };
        let value = *written.get_ref();
        if range.contains(&value) {
            return Ok(value);
        }
        let problem = format!("must be {} to {}, not {value}", range.start(), range.end());
        Err(self.value(key, written.span(), problem))
    }

    /// The value of `name`: 1 to [`NAME_BYTES_MAX`] bytes, none of a control character.
    pub fn name(self, written: Option<Spanned<String>>) -> Result<Option<String>, ConfigError> {
        let Some(written) = written else {
            return Ok(None);
        };
        let name = written.get_ref();
        if (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control) {
            return Ok(Some(written.into_inner()));
        }
        let problem = format!("must have 1 to {NAME_BYTES_MAX} bytes and no control character");
        Err(self.value("name", written.span(), problem))
    }

    /// The value of `log`, a filter that parses; `info` by default.
    pub fn log(self, written: Option<Spanned<String>>) -> Result<String, ConfigError> {
        let Some(written) = written else {
            return Ok("info".to_owned());
        };
        crate::log::filter(written.get_ref())
            .map_err(|error| self.value("log", written.span(), error.to_string()))?;
        Ok(written.into_inner())
    }

    /// The values of `state-dir` and `state-bytes-max`; by default the folder that the environment names.
    pub fn state(
        self,
        folder: Option<PathBuf>,
        bytes_max: &Option<Spanned<u64>>,
    ) -> Result<StateConfig, ConfigError> {
        let range = STATE_BYTES_MIN..=STATE_BYTES_MAX;
        let default = StateConfig::default();
        Ok(StateConfig {
            folder: folder.map(|path| self.beside(path)).or(default.folder),
            bytes_max: self.whole("state-bytes-max", bytes_max, default.bytes_max, range)?,
        })
    }

    /// What a table means to whoever defines it; `T`'s default where it is absent. `meant` gets the folder that
    /// relative paths are taken from.
    pub fn table<R, T: Default, E: std::error::Error + Send + Sync + 'static>(
        self,
        key: &'static str,
        written: &Option<Spanned<R>>,
        meant: impl FnOnce(&R, &Path) -> Result<T, E>,
    ) -> Result<T, ConfigError> {
        let Some(written) = written else {
            return Ok(T::default());
        };
        let folder = self.beside(PathBuf::new());
        meant(written.get_ref(), &folder).map_err(|error| self.file(key, written.span(), error))
    }

    /// A list of files whose length is in `range`.
    pub fn files(
        self,
        key: &'static str,
        written: Spanned<Vec<PathBuf>>,
        range: RangeInclusive<usize>,
    ) -> Result<Vec<PathBuf>, ConfigError> {
        let span = written.span();
        let files = written.into_inner();
        if !range.contains(&files.len()) {
            let (min, max, len) = (range.start(), range.end(), files.len());
            let problem = format!("must list {min} to {max} files, not {len}");
            return Err(self.value(key, span, problem));
        }
        Ok(files.into_iter().map(|path| self.beside(path)).collect())
    }

    /// A file that there must be, because of `why`.
    pub fn needed(
        self,
        key: &'static str,
        written: Option<PathBuf>,
        why: &'static str,
    ) -> Result<PathBuf, ConfigError> {
        written
            .map(|path| self.beside(path))
            .ok_or_else(|| self.missing(key, why))
    }

    /// `path`, from the folder of the configuration file where it is relative.
    #[must_use]
    pub fn beside(self, path: PathBuf) -> PathBuf {
        self.path
            .parent()
            .map_or_else(|| path.clone(), |folder| folder.join(&path))
    }

    /// The error of a value that cannot be meant; `span` is where it stands in the text.
    #[must_use]
    pub fn value(self, key: &'static str, span: Range<usize>, problem: String) -> ConfigError {
        ConfigError::Value {
            path: self.path.to_owned(),
            line: self.line(&span),
            key,
            problem,
        }
    }

    /// The error of a key that is not there.
    #[must_use]
    pub fn missing(self, key: &'static str, why: &'static str) -> ConfigError {
        ConfigError::Missing {
            path: self.path.to_owned(),
            key,
            why,
        }
    }

    /// The error of a file that the value at `span` names.
    #[must_use]
    pub fn file(
        self,
        key: &'static str,
        span: Range<usize>,
        error: impl std::error::Error + Send + Sync + 'static,
    ) -> ConfigError {
        ConfigError::File {
            path: self.path.to_owned(),
            line: self.line(&span),
            key,
            source: Box::new(error),
        }
    }

    fn line(self, span: &Range<usize>) -> usize {
        let before = self.text.get(..span.start).unwrap_or_default();
        1 + before.matches('\n').count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        whole: Option<Spanned<u64>>,
        real: Option<Spanned<f64>>,
        name: Option<Spanned<String>>,
        log: Option<Spanned<String>>,
        files: Option<Spanned<Vec<PathBuf>>>,
        needed: Option<PathBuf>,
        state: Option<PathBuf>,
        state_bytes_max: Option<Spanned<u64>>,
    }

    #[derive(Debug, PartialEq)]
    struct Meant {
        whole: u8,
        real: f64,
        name: Option<String>,
        log: String,
        files: Vec<PathBuf>,
        needed: PathBuf,
        state: StateConfig,
    }

    fn parse(text: &str, path: &Path) -> Result<Meant, ConfigError> {
        let source = Source { text, path };
        let raw: Raw = source.parse()?;
        Ok(Meant {
            whole: source.whole("whole", &raw.whole, 7, 1..=255)?,
            real: source.real("real", &raw.real, 0.5, 0.0..=1.0)?,
            name: source.name(raw.name)?,
            log: source.log(raw.log)?,
            files: match raw.files {
                Some(files) => source.files("files", files, 1..=2)?,
                None => Vec::new(),
            },
            needed: source.needed("needed", raw.needed, "nothing works without it")?,
            state: source.state(raw.state, &raw.state_bytes_max)?,
        })
    }

    #[test]
    fn an_absent_key_has_its_default_and_a_present_one_its_value() {
        let path = Path::new("/etc/d.toml");
        let check = |text: &str, expected: Meant| assert_eq!(parse(text, path).unwrap(), expected);
        let defaults = || Meant {
            whole: 7,
            real: 0.5,
            name: None,
            log: "info".to_owned(),
            files: Vec::new(),
            needed: "/etc/n".into(),
            state: StateConfig::default(),
        };
        check("needed = 'n'", defaults());
        check(
            "needed = '/n'\nwhole = 255\nreal = 1\nname = 'd'\nlog = 'warn,a=off'\nfiles = ['f', '/g']\n\
             state = 's'\nstate_bytes_max = 100000000",
            Meant {
                whole: 255,
                real: 1.0,
                name: Some("d".to_owned()),
                log: "warn,a=off".to_owned(),
                files: vec!["/etc/f".into(), "/g".into()],
                needed: "/n".into(),
                state: StateConfig {
                    folder: Some("/etc/s".into()),
                    bytes_max: 100_000_000,
                },
            },
        );
        let bare = parse("needed = 'n'", Path::new("d.toml")).unwrap();
        assert_eq!(bare.needed, Path::new("n"));
    }

    #[test]
    fn an_error_names_the_file_the_line_and_the_key() {
        let check = |line: &str, parts: &[&str]| {
            let text = format!("needed = 'n'\n\n{line}\n");
            let error = parse(&text, Path::new("/etc/d.toml")).unwrap_err();
            let error = error.to_string();
            for part in parts.iter().chain(&["/etc/d.toml"]) {
                assert!(error.contains(part), "{part:?} is not in: {error}");
            }
        };
        check("hole = 1", &["line 3", "hole", "whole"]);
        check("whole = 'one'", &["line 3", "whole", "one"]);
        check("whole = -1", &["line 3", "whole"]);
        check("whole = 0", &["line 3: whole: must be 1 to 255, not 0"]);
        check("whole = 256", &["line 3: whole: must be 1 to 255, not 256"]);
        check("\nwhole = 9223372036854775807", &["line 4: whole:"]);
        check("real = 1.5", &["line 3: real: must be 0 to 1, not 1.5"]);
        check("real = nan", &["line 3: real:"]);
        check("real = -inf", &["line 3: real:"]);
        check("name = ''", &["line 3: name:"]);
        check("name = \"a\\tb\"", &["line 3: name:"]);
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        check(&format!("name = '{long}'"), &["line 3: name:"]);
        check("log = '=x='", &["line 3: log:"]);
        check(
            "files = []",
            &["line 3: files: must list 1 to 2 files, not 0"],
        );
        check("files = [\n'a',\n'b',\n'c']", &["line 3: files:", "not 3"]);
        check("needed = 'm'", &["line 3", "needed"]);
        check(
            "state_bytes_max = 1",
            &["line 3: state-bytes-max:", "67108864"],
        );
        check("whole = ", &["line 3"]);
        let error = parse("whole = 1", Path::new("d.toml")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "d.toml: needed is missing: nothing works without it"
        );
    }

    #[test]
    fn no_more_of_a_file_is_read_than_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.toml");
        std::fs::write(&path, "#123456").unwrap();
        assert_eq!(read_bounded(&path, 7).unwrap(), "#123456");
        let error = read_bounded(&path, 6).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        for refused in ["/dev/zero", "/nonexistent/d.toml", "/"] {
            let error = read(Path::new(refused)).unwrap_err();
            assert!(matches!(error, ConfigError::Read { .. }), "{error}");
        }
        std::fs::write(&path, [0xff]).unwrap();
        assert!(matches!(read(&path), Err(ConfigError::Read { .. })));
    }
}

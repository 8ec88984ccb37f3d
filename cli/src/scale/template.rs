//! The configuration that every relay of a fleet shares, and what differs between them.
//!
//! A template is an ordinary relay configuration. Its relative paths are meant from its own folder,
//! but each relay reads a copy elsewhere, so they are made absolute once. Only the keys that the
//! scaler sets or moves are looked at: the relay judges the rest.

use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::{Table, Value};

/// Slots of a relay for which nobody chose.
const SLOTS_DEFAULT: u64 = 1;

/// Seconds in which a relay drains for which nobody chose.
const DRAIN_S_DEFAULT: u64 = 30;

/// Folder that `tidegate dev-certs` fills when it is not told another.
const CERTS_DEFAULT: &str = "certs";

/// Keys that hold one path, with the file that `tidegate dev-certs` makes for each.
const IDENTITY: [(&str, &str); 3] = [
    ("certificate", "relay.pem"),
    ("key", "relay.key"),
    ("ca", "ca.pem"),
];

/// Key that holds a list of paths.
const MODULES: &str = "modules";

/// Table whose rules name key files.
const TRUST: &str = "trust";

/// What a key begins with that stands in the table itself, as the relay has it.
const INLINE_KEY: &str = "ssh-ed25519 ";

/// Whether relays run modules that nobody signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsigned {
    /// As the file says.
    AsWritten,
    /// They do.
    Allowed,
}

/// Why a relay's configuration cannot be used as a template.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not TOML", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A key has a value of the wrong type.
    #[error("{}: {key} must be {expected}", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A certificate or key is not there.
    #[error("{} is not there: make certificates with `tidegate dev-certs`", .0.display())]
    Identity(PathBuf),
    /// The path of the working folder is unknown.
    #[error("cannot tell the working folder")]
    Folder(#[source] io::Error),
}

/// A relay configuration without what differs between relays.
#[derive(Clone, Debug)]
pub(crate) struct RelayTemplate {
    shared: Table,
    slots: usize,
    drain: Duration,
}

impl RelayTemplate {
    /// Reads the file, if there is one, and completes it: `certs` and `slots` go before what the
    /// file says, and that before the defaults. Checks that the identity files are there.
    pub(crate) fn read(
        file: Option<&Path>,
        certs: Option<&Path>,
        slots: Option<NonZeroUsize>,
        unsigned: Unsigned,
    ) -> Result<Self, TemplateError> {
        let mut shared = match file {
            Some(path) => parse(path)?,
            None => Table::new(),
        };
        let certs = match certs {
            None if IDENTITY.iter().any(|(key, _)| shared.contains_key(*key)) => None,
            chosen => Some(chosen.unwrap_or_else(|| Path::new(CERTS_DEFAULT))),
        };
        if let Some(folder) = certs {
            let folder = std::path::absolute(folder).map_err(TemplateError::Folder)?;
            for (key, name) in IDENTITY {
                shared.insert(key.to_owned(), path_value(&folder.join(name)));
            }
        }
        for (key, _) in IDENTITY {
            if let Some(Value::String(path)) = shared.get(key)
                && !Path::new(path).is_file()
            {
                return Err(TemplateError::Identity(path.into()));
            }
        }
        let whole = |key: &str, default: u64, min: u64| match shared.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_integer()
                .and_then(|value| u64::try_from(value).ok())
                .filter(|value| *value >= min)
                .ok_or_else(|| TemplateError::Type {
                    path: file.unwrap_or_else(|| Path::new("")).to_owned(),
                    key: key.to_owned(),
                    expected: "a whole number in its range",
                }),
        };
        let slots = match slots {
            Some(slots) => slots.get(),
            None => usize::try_from(whole("slots", SLOTS_DEFAULT, 1)?).unwrap_or(usize::MAX),
        };
        let drain_s = whole("drain-s", DRAIN_S_DEFAULT, 0)?;
        let drain = Duration::from_secs(drain_s);
        shared.insert("slots".to_owned(), integer(slots as u64));
        shared.insert("drain-s".to_owned(), integer(drain_s));
        match unsigned {
            Unsigned::AsWritten => {}
            Unsigned::Allowed => {
                let trust = shared.entry(TRUST).or_insert_with(|| Table::new().into());
                if let Some(trust) = trust.as_table_mut() {
                    trust.insert("allow-unsigned".to_owned(), true.into());
                }
            }
        }
        // Relays of one fleet cannot share a port.
        shared.remove("metrics-listen");
        Ok(Self {
            shared,
            slots,
            drain,
        })
    }

    /// Requests that one relay runs at once.
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// How long one relay gets to drain.
    pub(crate) fn drain(&self) -> Duration {
        self.drain
    }

    /// The configuration of one relay: on loopback, on a free port.
    pub(crate) fn config(&self, name: &str) -> String {
        let mut table = self.shared.clone();
        let listen = format!("{}:0", Ipv4Addr::LOCALHOST);
        table.insert("listen".to_owned(), listen.into());
        table.insert("name".to_owned(), name.into());
        table.to_string()
    }
}

/// A number as TOML has it, which the relay refuses if it is out of range.
fn integer(value: u64) -> Value {
    Value::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// The table in the file, its relative paths made absolute.
fn parse(path: &Path) -> Result<Table, TemplateError> {
    let text = std::fs::read_to_string(path).map_err(|source| TemplateError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut table: Table = toml::from_str(&text).map_err(|source| TemplateError::Parse {
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    let folder = std::path::absolute(path).map_err(TemplateError::Folder)?;
    let folder = folder.parent().unwrap_or_else(|| Path::new("/"));
    let wrong = |key: &str, expected| TemplateError::Type {
        path: path.to_owned(),
        key: key.to_owned(),
        expected,
    };
    for (key, _) in IDENTITY {
        if let Some(value) = table.get_mut(key) {
            let text = value.as_str().ok_or_else(|| wrong(key, "a path"))?;
            *value = path_value(&folder.join(text));
        }
    }
    if let Some(value) = table.get_mut(MODULES) {
        let modules = value
            .as_array_mut()
            .ok_or_else(|| wrong(MODULES, "a list of paths"))?;
        for module in modules {
            let text = module
                .as_str()
                .ok_or_else(|| wrong(MODULES, "a list of paths"))?;
            *module = path_value(&folder.join(text));
        }
    }
    let rules = table
        .get_mut(TRUST)
        .and_then(|trust| trust.get_mut("rules"));
    let rules = rules.and_then(Value::as_array_mut).into_iter().flatten();
    let keys = rules.filter_map(|rule| rule.get_mut("keys")?.as_array_mut());
    for key in keys.flatten() {
        if let Some(text) = key.as_str().filter(|text| !text.starts_with(INLINE_KEY)) {
            *key = path_value(&folder.join(text));
        }
    }
    Ok(table)
}

/// A path as TOML has it. One that is not UTF-8 loses bytes, and the relay then reports it missing.
fn path_value(path: &Path) -> Value {
    Value::String(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a template of `text`, and the three identity files in `ids`.
    fn folder(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("relay.toml");
        std::fs::write(&file, text).unwrap();
        std::fs::create_dir(folder.path().join("ids")).unwrap();
        for (_, name) in IDENTITY {
            std::fs::write(folder.path().join("ids").join(name), "").unwrap();
        }
        (folder, file)
    }

    #[test]
    fn paths_are_meant_from_the_template_and_the_rest_is_kept() {
        let (dir, file) = folder(
            "listen = '0.0.0.0:1'\nmetrics-listen = '0.0.0.0:2'\ndrain-s = 7\nslots = 3\nmodules = ['m.wasm']\n\
             certificate = 'ids/relay.pem'\nkey = 'ids/relay.key'\nca = 'ids/ca.pem'\n\
             [[trust.rules]]\nnames = ['*']\nkeys = ['author.pub', 'ssh-ed25519 AAAA']\n",
        );
        let template = RelayTemplate::read(Some(&file), None, None, Unsigned::AsWritten).unwrap();
        let table: Table = toml::from_str(&template.config("relay-9")).unwrap();
        let text = |key: &str| table[key].as_str().unwrap().to_owned();
        assert_eq!(text("listen"), "127.0.0.1:0");
        assert_eq!(text("name"), "relay-9");
        assert_eq!(Path::new(&text("key")), dir.path().join("ids/relay.key"));
        assert_eq!(
            table["modules"][0].as_str().map(Path::new),
            Some(&*dir.path().join("m.wasm"))
        );
        let keys = table["trust"]["rules"][0]["keys"].as_array().unwrap();
        let author = dir.path().join("author.pub");
        assert_eq!(keys[0].as_str().map(Path::new), Some(&*author));
        assert_eq!(keys[1].as_str(), Some("ssh-ed25519 AAAA"));
        assert_eq!(table["trust"].get("allow-unsigned"), None);
        assert_eq!(table["drain-s"].as_integer(), Some(7));
        assert_eq!(table["slots"].as_integer(), Some(3));
        assert!(!table.contains_key("metrics-listen"));
    }

    #[test]
    fn arguments_go_before_the_file() {
        let (dir, file) = folder("slots = 3\nkey = 'elsewhere'");
        let slots = NonZeroUsize::new(2);
        let template = RelayTemplate::read(
            Some(&file),
            Some(&dir.path().join("ids")),
            slots,
            Unsigned::Allowed,
        )
        .unwrap();
        let table: Table = toml::from_str(&template.config("r")).unwrap();
        assert_eq!(table["slots"].as_integer(), Some(2));
        assert_eq!(table["trust"]["allow-unsigned"].as_bool(), Some(true));
        assert_eq!(
            table["key"].as_str().map(Path::new),
            Some(&*dir.path().join("ids/relay.key"))
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, named) in [
            ("slots = 0", "slots"),
            ("slots = -1", "slots"),
            ("slots = 'two'", "slots"),
            ("drain-s = -1", "drain-s"),
            ("key = 1", "key"),
            ("modules = 'm.wasm'", "modules"),
            ("modules = [1]", "modules"),
            ("key = 'none.key'", "none.key"),
            ("= 1", "relay.toml"),
        ] {
            let (dir, file) = folder(text);
            let certs = dir.path().join("ids");
            let certs = (!text.starts_with("key = 'none")).then_some(&*certs);
            let error =
                RelayTemplate::read(Some(&file), certs, None, Unsigned::AsWritten).unwrap_err();
            assert!(error.to_string().contains(named), "{text}: {error}");
        }
    }
}

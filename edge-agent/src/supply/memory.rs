//! What an agent must know of its modules from one start to the next.
//!
//! Three things, in the state folder: the highest version of each name that proved itself, below which
//! none runs again (`seen.json`); the version of each module that proved itself last, which is what
//! the agent starts with, network or not; and the versions that were rolled back, which are not tried
//! again (`rollouts.json`). The first is a promise: a file that cannot be read keeps the agent from
//! starting, and where signatures are wanted, one that cannot be written does too, and later keeps new
//! versions out. The others are conveniences: without them the agent takes what is there. They keep what is
//! not configured now as well, which may come back, but not without end.
//!
//! Of a module file that proved itself a copy goes to the store, so that there is something to start with
//! when the file itself is a version that was rolled back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tidegate_inference::Digest;
use tidegate_registry::trust::{RollbackError, SeenError, SeenVersions};
use tidegate_registry::{KeptModule, ModuleStore};
use tidegate_store::FolderError;

/// Longest `rollouts.json`: every module of a configuration with every digest that it remembers, twice.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Modules that are remembered although they are not configured now.
const OTHERS_MAX: usize = 256;

/// Why something is not remembered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RememberError {
    #[error("failed to record the version")]
    Seen(#[source] SeenError),
    #[error("failed to keep a copy of the module")]
    Keep(#[source] FolderError),
    #[error("failed to write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// What is remembered of one module of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    /// The version that proved itself last.
    pub(crate) good: Option<Digest>,
    /// The versions that were rolled back, oldest first.
    pub(crate) refused: Vec<Digest>,
}

/// What was learnt of the modules, and the files that keep it.
#[derive(Debug)]
pub(crate) struct Memory {
    store: Option<ModuleStore>,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    seen: Option<SeenVersions>,
    rollouts: Option<PathBuf>,
    by_source: BTreeMap<String, Remembered>,
}

/// One entry as written. Digests are text, so that a damaged one costs itself alone.
#[derive(Default, Serialize, Deserialize)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    good: Option<String>,
    #[serde(default)]
    refused: Vec<String>,
}

impl Memory {
    /// Reads what the state folder keeps of `sources`, the modules of the configuration. Without a folder, or
    /// without a store, nothing is kept there.
    pub(crate) fn open(
        folder: Option<&Path>,
        store: Option<ModuleStore>,
        sources: &[String],
    ) -> Result<Self, SeenError> {
        let seen = folder.map(|folder| SeenVersions::open(folder.join("seen.json")));
        let rollouts = folder.map(|folder| folder.join("rollouts.json"));
        let mut by_source = rollouts.as_deref().map(recall).unwrap_or_default();
        let mut others = 0;
        by_source.retain(|source, _| {
            let is_configured = sources.contains(source);
            others += usize::from(!is_configured);
            is_configured || others <= OTHERS_MAX
        });
        let kept = Kept {
            seen: seen.transpose()?,
            rollouts,
            by_source,
        };
        Ok(Self {
            store,
            kept: Mutex::new(kept),
        })
    }

    /// Refuses a version below the highest that proved itself.
    pub(crate) fn check(&self, name: &str, version: &str) -> Result<(), RollbackError> {
        match &self.kept().seen {
            Some(seen) => seen.check(name, version),
            None => Ok(()),
        }
    }

    /// Makes sure that the highest versions are on the disk. Writes a file, so not on an executor.
    pub(crate) fn keep(&self) -> Result<(), SeenError> {
        match &mut self.kept().seen {
            Some(seen) => seen.keep(),
            None => Ok(()),
        }
    }

    /// What is remembered of a module.
    pub(crate) fn of(&self, source: &str) -> Remembered {
        self.kept()
            .by_source
            .get(source)
            .cloned()
            .unwrap_or_default()
    }

    /// A module from the store. Reads and hashes all of it, so not on an executor.
    pub(crate) fn module(&self, digest: Digest) -> Option<KeptModule> {
        let got = self.store.as_ref()?.get(&digest);
        got.unwrap_or_else(|error| {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(%digest, error, "failed to read a module from the store");
            None
        })
    }

    /// A version has proved itself. `copy` is its file where the store does not have it from a registry.
    /// Writes files, so not on an executor.
    pub(crate) fn proved(
        &self,
        source: &str,
        digest: Digest,
        (name, version): (&str, &str),
        copy: Option<&[u8]>,
    ) -> Result<(), RememberError> {
        // First, and whatever becomes of the rest: it is small and the promise.
        let recorded = match &mut self.kept().seen {
            Some(seen) => seen.record(name, version),
            None => Ok(()),
        };
        recorded.map_err(RememberError::Seen)?;
        if let (Some(store), Some(copy)) = (&self.store, copy)
            && !store.contains(&digest).unwrap_or(false)
        {
            store.put(copy).map_err(RememberError::Keep)?;
        }
        let mut kept = self.kept();
        let before = kept.by_source.entry(source.to_owned()).or_default();
        let before = before.good.replace(digest);
        if before == Some(digest) {
            return Ok(());
        }
        kept.write().inspect_err(|_| {
            // What is not on the disk is written with the next version that proves itself.
            let remembered = kept.by_source.get_mut(source);
            remembered.expect("it was entered above").good = before;
        })
    }

    /// These versions were rolled back. Writes a file, so not on an executor.
    pub(crate) fn refused(&self, source: &str, refused: Vec<Digest>) -> Result<(), RememberError> {
        let mut kept = self.kept();
        kept.by_source.entry(source.to_owned()).or_default().refused = refused;
        kept.write()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn write(&self) -> Result<(), RememberError> {
        let Some(path) = &self.rollouts else {
            return Ok(());
        };
        let written = |(source, remembered): (&String, &Remembered)| {
            let written = Written {
                good: remembered.good.as_ref().map(ToString::to_string),
                refused: remembered.refused.iter().map(ToString::to_string).collect(),
            };
            (source.clone(), written)
        };
        let all: BTreeMap<_, _> = self.by_source.iter().map(written).collect();
        let bytes = serde_json::to_vec_pretty(&all).expect("text becomes JSON");
        tidegate_store::write_whole(path, &bytes).map_err(|source| {
            let path = path.clone();
            RememberError::Write { path, source }
        })
    }
}

fn recall(path: &Path) -> BTreeMap<String, Remembered> {
    let written: BTreeMap<String, Written> = match read(path) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => {
            let path = path.display();
            tracing::warn!(%path, %error, "what was learnt of rollouts cannot be read, it is forgotten");
            BTreeMap::new()
        }
    };
    let digest = |text: String| text.parse().ok();
    let remembered = |(source, written): (String, Written)| {
        let remembered = Remembered {
            good: written.good.and_then(digest),
            refused: written.refused.into_iter().filter_map(digest).collect(),
        };
        (source, remembered)
    };
    written.into_iter().map(remembered).collect()
}

fn read(path: &Path) -> io::Result<BTreeMap<String, Written>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let reason = format!("it has more than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::other(reason));
    }
    serde_json::from_slice(&bytes).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "oci://localhost:5000/echo:1";

    const V1: (&str, &str) = ("echo", "1.2.0");

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    fn open(folder: &Path) -> Result<Memory, SeenError> {
        Memory::open(Some(folder), None, &[SOURCE.to_owned()])
    }

    #[test]
    fn what_was_learnt_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let memory = open(folder.path()).unwrap();
        assert_eq!(memory.of(SOURCE), Remembered::default());
        memory.proved(SOURCE, digest(1), V1, None).unwrap();
        memory.refused(SOURCE, vec![digest(2), digest(3)]).unwrap();
        let again = open(folder.path()).unwrap();
        let expected = Remembered {
            good: Some(digest(1)),
            refused: vec![digest(2), digest(3)],
        };
        assert_eq!(again.of(SOURCE), expected);
        assert!(again.check("echo", "1.1.9").is_err());
        assert!(again.check("echo", "1.2.0").is_ok());
    }

    #[test]
    fn a_damaged_list_of_rollouts_is_forgotten_and_a_damaged_promise_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let memory = open(folder.path()).unwrap();
        memory.proved(SOURCE, digest(1), V1, None).unwrap();
        std::fs::write(folder.path().join("rollouts.json"), "{\"a\":").unwrap();
        let again = open(folder.path()).unwrap();
        assert_eq!(again.of(SOURCE), Remembered::default());
        std::fs::write(folder.path().join("seen.json"), "{\"a\":").unwrap();
        assert!(open(folder.path()).is_err());
    }

    #[test]
    fn what_is_not_configured_now_is_kept_but_not_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let memory = open(folder.path()).unwrap();
        for at in 0..=OTHERS_MAX {
            let refused = vec![digest(2)];
            memory.refused(&format!("{at:04}.wasm"), refused).unwrap();
        }
        memory.proved(SOURCE, digest(1), V1, None).unwrap();
        let memory = open(folder.path()).unwrap();
        assert_eq!(memory.of("0000.wasm").refused, [digest(2)]);
        let last = format!("{OTHERS_MAX:04}.wasm");
        assert_eq!(memory.of(&last), Remembered::default());
        assert_eq!(memory.of(SOURCE).good, Some(digest(1)));
    }

    #[test]
    fn a_version_is_recorded_also_where_no_copy_can_be_kept() {
        let folder = tempfile::tempdir().unwrap();
        // No module has room in it.
        let store = ModuleStore::open(folder.path().join("modules"), 1).unwrap();
        let sources = [SOURCE.to_owned()];
        let memory = Memory::open(Some(folder.path()), Some(store), &sources).unwrap();
        let kept = memory.proved(SOURCE, digest(1), V1, Some(b"a module"));
        assert!(matches!(kept, Err(RememberError::Keep(_))), "{kept:?}");
        assert!(open(folder.path()).unwrap().check("echo", "1.1.9").is_err());
    }

    #[test]
    fn without_a_folder_nothing_is_kept_and_everything_works() {
        let memory = Memory::open(None, None, &[]).unwrap();
        memory.proved(SOURCE, digest(1), V1, None).unwrap();
        assert_eq!(memory.of(SOURCE).good, Some(digest(1)));
        assert!(memory.check("echo", "0.1").is_ok());
    }
}

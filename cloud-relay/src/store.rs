//! The modules that this relay has ready, bounded in bytes, each fetched and loaded once.
//!
//! A module is known by digest and length: a peer that lies about the length of a module makes an
//! entry of its own and cannot spoil the honest one. A [`Lease`] keeps an entry: connections hold one
//! for every module that their agent offered, so what can be asked for is never evicted. Entries
//! without a lease go when room is wanted, the least recently used first.
//!
//! Any number of connections may offer the same module: one fetches it while the others wait, and
//! where that one fails the next takes over. Bytes are hashed and loaded on the blocking pool, one
//! module at a time, and only when they are what their digest says and the relay's own policy trusts who
//! made them: an agent that trusts everybody cannot make a relay do so. The bound counts module files;
//! what preparing them takes on top is proportional, some two to three times as much.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tidegate_inference::Digest;
use tidegate_registry::trust::{TrustError, TrustPolicy};
use tidegate_runtime::{LoadError, Model, ModuleError, ModuleFile, Runtime};
use tokio::sync::{Notify, OnceCell, Semaphore};

/// What makes two offers the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ModuleKey {
    /// Digest of the file.
    pub(crate) digest: Digest,
    /// Bytes of the file.
    pub(crate) len: u64,
}

/// Why a module gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LeaseError {
    /// Larger than a module may be.
    #[error("the module has {len} bytes, at most {bytes_max} are taken")]
    TooLarge {
        /// Bytes of the file.
        len: u64,
        /// The relay's limit.
        bytes_max: u64,
    },
    /// Every byte is taken by modules that connected agents offer.
    #[error("no room for a module of {len} bytes")]
    Full {
        /// Bytes of the file.
        len: u64,
    },
}

/// Why a module is not ready after all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FillError<E: std::error::Error + 'static> {
    /// The bytes did not come; another peer may have them.
    #[error("failed to fetch the module")]
    Fetch(#[source] E),
    /// The bytes are not the module.
    #[error("the bytes that came have digest {got}")]
    Digest {
        /// What they are instead.
        got: Digest,
    },
    /// The bytes are the module, and it cannot be loaded. Nor will it ever be, so nobody tries again.
    #[error("failed to load the module: {reason}")]
    Load {
        /// The whole chain of reasons.
        reason: String,
    },
}

/// Why a module does not run here.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// It is no module.
    #[error("not a model module")]
    Parse(#[from] ModuleError),
    /// Nobody who is trusted with its name made it.
    #[error("the module is not trusted")]
    Trust(#[from] TrustError),
    /// It is not a module that this relay can run.
    #[error("the module cannot be loaded")]
    Load(#[source] Box<LoadError>),
}

/// Why a module of the configuration cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PreloadError {
    /// It cannot be read.
    #[error("the file cannot be read")]
    Read {
        /// Why.
        source: ModuleError,
    },
    /// It is not a module that this relay may or can run.
    #[error("the file was refused")]
    Admit {
        /// Why.
        source: AdmitError,
    },
    /// Loading it panicked.
    #[error("loading it panicked")]
    Panic {
        /// Where.
        source: tokio::task::JoinError,
    },
    /// It is larger than a module, or all of them, may be.
    #[error("{reason}")]
    Room {
        /// Which limit.
        reason: String,
    },
}

/// Bounded, shared, and emptied only where room is wanted.
#[derive(Debug)]
pub(crate) struct Store {
    gate: Arc<Gate>,
    module_bytes_max: u64,
    bytes_max: u64,
    entries: Mutex<Entries>,
    /// Told whenever an entry may have become evictable.
    pub(crate) released: Notify,
    loading: Arc<Semaphore>,
}

/// What makes a model of a module, if it may.
#[derive(Debug)]
struct Gate {
    runtime: Arc<Runtime>,
    trust: TrustPolicy,
}

impl Gate {
    /// Checks who made it, then prepares it: seconds of CPU.
    fn admit(&self, module: ModuleFile) -> Result<Arc<Model>, AdmitError> {
        let manifest = module.manifest();
        let (name, version) = (&manifest.name, &manifest.version);
        let trusted = self.trust.check(name, version, module.file())?;
        let loaded = self.runtime.load_module(module, trusted.isolation);
        loaded.map_err(|error| AdmitError::Load(Box::new(error)))
    }
}

#[derive(Debug, Default)]
struct Entries {
    by_key: HashMap<ModuleKey, Slot>,
    bytes: u64,
    clock: u64,
}

#[derive(Debug)]
struct Slot {
    entry: Arc<Entry>,
    leases: usize,
    released: u64,
}

/// `Err` holds why the module cannot be loaded.
#[derive(Debug, Default)]
struct Entry {
    ready: OnceCell<Result<Arc<Model>, String>>,
}

impl Store {
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        trust: TrustPolicy,
        module_bytes_max: u64,
        bytes_max: u64,
    ) -> Self {
        Self {
            gate: Arc::new(Gate { runtime, trust }),
            module_bytes_max,
            bytes_max,
            entries: Mutex::default(),
            released: Notify::new(),
            loading: Arc::new(Semaphore::new(1)),
        }
    }

    /// A place for a module, with the module in it if it is ready.
    pub(crate) fn lease(self: &Arc<Self>, key: ModuleKey) -> Result<Lease, LeaseError> {
        let entry = self.occupy(key)?;
        Ok(Lease {
            store: Arc::clone(self),
            key,
            entry,
        })
    }

    /// Reads, checks and loads a module file, and keeps it for good.
    pub(crate) async fn preload(self: Arc<Self>, path: PathBuf) -> Result<(), PreloadError> {
        let gate = Arc::clone(&self.gate);
        let loading = tokio::task::spawn_blocking(move || {
            let module = ModuleFile::read(&path).map_err(|source| PreloadError::Read { source })?;
            let admitted = gate.admit(module);
            admitted.map_err(|source| PreloadError::Admit { source })
        });
        let model = loading
            .await
            .map_err(|panicked| PreloadError::Panic { source: panicked })??;
        let key = ModuleKey {
            digest: model.digest(),
            len: u64::try_from(model.file().len()).expect("usize is at most 64 bits"),
        };
        let entry = self.occupy(key).map_err(|error| PreloadError::Room {
            reason: error.to_string(),
        })?;
        // The place that was just taken is never given back. A module that is listed twice stays.
        let _ = entry.ready.set(Ok(model));
        Ok(())
    }

    /// Bytes of the modules that one connection may offer: half of the store, and at least one
    /// module of the largest size.
    pub(crate) fn peer_bytes_max(&self) -> u64 {
        self.module_bytes_max.max(self.bytes_max / 2)
    }

    /// Bytes of all module files that are here or on their way.
    pub(crate) fn bytes(&self) -> u64 {
        self.entries().bytes
    }

    fn occupy(&self, key: ModuleKey) -> Result<Arc<Entry>, LeaseError> {
        let ModuleKey { len, .. } = key;
        if len > self.module_bytes_max {
            let bytes_max = self.module_bytes_max;
            return Err(LeaseError::TooLarge { len, bytes_max });
        }
        let mut entries = self.entries();
        if let Some(slot) = entries.by_key.get_mut(&key) {
            slot.leases += 1;
            return Ok(Arc::clone(&slot.entry));
        }
        let unused = |(_, slot): &(&ModuleKey, &Slot)| slot.leases == 0;
        let evictable: u64 = entries
            .by_key
            .iter()
            .filter(unused)
            .map(|(key, _)| key.len)
            .sum();
        if entries.bytes - evictable + len > self.bytes_max {
            return Err(LeaseError::Full { len });
        }
        while entries.bytes + len > self.bytes_max {
            let oldest = entries
                .by_key
                .iter()
                .filter(unused)
                .min_by_key(|(_, slot)| slot.released);
            let oldest = *oldest.expect("what is in use leaves room").0;
            entries.by_key.remove(&oldest);
            entries.bytes -= oldest.len;
            tracing::info!(digest = %oldest.digest, len = oldest.len, "evicted a module");
        }
        let entry = Arc::new(Entry::default());
        let slot = Slot {
            entry: Arc::clone(&entry),
            leases: 1,
            released: 0,
        };
        entries.by_key.insert(key, slot);
        entries.bytes += len;
        Ok(entry)
    }

    fn release(&self, key: ModuleKey) {
        let mut entries = self.entries();
        entries.clock += 1;
        let now = entries.clock;
        if let Some(slot) = entries.by_key.get_mut(&key) {
            slot.leases -= 1;
            slot.released = now;
            let ready = matches!(slot.entry.ready.get(), Some(Ok(_)));
            if slot.leases == 0 && !ready {
                entries.by_key.remove(&key);
                entries.bytes -= key.len;
            }
        }
        drop(entries);
        self.released.notify_waiters();
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a module's place for as long as it lives.
#[derive(Debug)]
pub(crate) struct Lease {
    store: Arc<Store>,
    key: ModuleKey,
    entry: Arc<Entry>,
}

impl Lease {
    /// Which module.
    pub(crate) fn key(&self) -> ModuleKey {
        self.key
    }

    /// The module, if it is ready.
    pub(crate) fn ready(&self) -> Option<Arc<Model>> {
        self.entry.ready.get()?.as_ref().ok().cloned()
    }

    /// Makes the module ready, by the bytes that `fetch` brings unless somebody else's are first.
    pub(crate) async fn fill<E: std::error::Error + 'static>(
        &self,
        fetch: impl Future<Output = Result<Bytes, E>>,
    ) -> Result<Arc<Model>, FillError<E>> {
        let filled = self.entry.ready.get_or_try_init(|| async {
            let file = fetch.await.map_err(FillError::Fetch)?;
            self.load(file).await
        });
        filled
            .await?
            .clone()
            .map_err(|reason| FillError::Load { reason })
    }

    async fn load<E: std::error::Error + 'static>(
        &self,
        file: Bytes,
    ) -> Result<Result<Arc<Model>, String>, FillError<E>> {
        let permit = Arc::clone(&self.store.loading).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let gate = Arc::clone(&self.store.gate);
        let wanted = self.key.digest;
        let load = tokio::task::spawn_blocking(move || {
            // Held by the thread: it goes on when the connection that asked for it is gone.
            let _permit = permit;
            let got = tidegate_runtime::module::sha256(&file);
            if got != wanted {
                return Err(got);
            }
            let parsed = ModuleFile::parse(file).map_err(AdmitError::from);
            let admitted = parsed.and_then(|module| gate.admit(module));
            Ok(admitted.map_err(|error| chain(&error)))
        });
        match load.await {
            Ok(Ok(loaded)) => Ok(loaded),
            Ok(Err(got)) => Err(FillError::Digest { got }),
            Err(panicked) => Ok(Err(panicked.to_string())),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.store.release(self.key);
    }
}

/// An error and its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

//! Modules to and from registries: a real one, and some that are up to no good.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic, also outside its test functions"
)]

mod credentials;
mod cutter;
mod hostile;
mod peers;
mod published;
mod redirects;
mod resuming;
mod server;
mod storing;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tidegate_inference::Digest;
use tidegate_registry::{
    Access, KeptModule, ModuleStore, Patience, Reference, Registries, TransferError, Version, Watch,
};

/// Little patience: these registries are on this machine.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(1),
    stall: Duration::from_millis(1500),
    retry_first: Duration::from_millis(10),
};

/// A client and a store of its own.
struct Client {
    registries: Registries,
    store: ModuleStore,
    folder: TempDir,
}

impl Client {
    fn new() -> Self {
        Self::with(Access::default())
    }

    fn with(access: Access) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let patience = PATIENCE;
        Self {
            registries: Registries::new(Access { patience, ..access }).unwrap(),
            store: ModuleStore::open(folder.path(), 1 << 30).unwrap(),
            folder,
        }
    }

    async fn publish(&self, reference: &str, wasm: &Bytes) -> Result<Version, TransferError> {
        let annotations = BTreeMap::from([("org.example.key".to_owned(), "value".to_owned())]);
        let watch = Watch::nobody();
        let reference = reference.parse().unwrap();
        self.registries
            .publish(&reference, wasm.clone(), annotations, &watch)
            .await
    }

    async fn pull(&self, reference: &str) -> Result<(Version, KeptModule), TransferError> {
        let reference: Reference = reference.parse().unwrap();
        let version = self.registries.resolve(&reference, &self.store).await?;
        let watch = Watch::nobody();
        let fetched = self
            .registries
            .fetch(&reference, &version, &self.store, &watch);
        Ok((version, fetched.await?))
    }

    /// Files in the store and beside it, but locks.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        for kind in ["sha256", "partial"] {
            for entry in std::fs::read_dir(self.folder.path().join(kind)).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if name != ".lock" {
                    files.push(format!("{kind}/{name}"));
                }
            }
        }
        files
    }
}

/// A core module that is valid, and different for each `text`, with a custom section of `bytes` zeros.
fn wasm(text: &str, bytes: usize) -> Bytes {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    for (name, contents) in [(text, vec![]), ("padding", vec![0; bytes])] {
        let mut section = leb128(name.len());
        section.extend_from_slice(name.as_bytes());
        section.extend_from_slice(&contents);
        module.push(0);
        module.extend(leb128(section.len()));
        module.extend(section);
    }
    module.into()
}

fn leb128(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return bytes;
        }
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    Digest(digest.as_ref().try_into().unwrap())
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        line += &format!(": {error}");
        next = error.source();
    }
    line
}

/// Asserts that an error says all of `named` and nothing of `unsaid`.
#[track_caller]
fn says(error: &TransferError, named: &[&str], unsaid: &[&dyn Display]) {
    let text = format!("{} {error:?}", chain(error));
    for name in named {
        assert!(text.contains(name), "{name:?} is not in {text}");
    }
    for secret in unsaid {
        assert!(!text.contains(&secret.to_string()), "a secret in {text}");
    }
}

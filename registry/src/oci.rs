//! Modules in OCI registries, the ones that people already run for containers.
//!
//! What a reference names is settled once: a tag is turned into the digest of a manifest, the manifest
//! names the digest of the module file, and from there on everything is fetched by digest and checked against
//! it. A tag that moves meanwhile changes nothing, and a registry that lies is found out.
//!
//! The HTTP is ours, on `reqwest`: `oci-client`, whose references and manifests are used here, reads
//! manifests and tokens of any size into memory, waits for ever, and neither resumes nor repeats.

mod answer;
mod artifact;
mod auth;
mod credentials;
mod download;
mod error;
mod reference;
mod transport;
mod upload;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use tidegate_inference::Digest;

use self::artifact::{ACCEPTED, Artifact, MANIFEST_BYTES_MAX, MANIFEST_TYPE, Manifest};
use self::auth::Scope;
pub use self::credentials::{HELPER_TIME_MAX, ReadCredentialsError, docker_config_folder};
use self::download::{Wanted, blocking};
pub use self::error::TransferError;
pub use self::reference::{ParseReferenceError, Reference};
pub use self::transport::{Access, Patience};
use self::transport::{Call, Transport, host_of};
use self::upload::Upload;
pub use self::watch::Watch;
use crate::modules::{KeptModule, ModuleStore, sha256};

/// One version of a module: what a reference named at some moment, and names for ever by digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// The manifest's digest, which is the one to pin. `None` if the reference pins the module's own.
    pub manifest: Option<Digest>,
    /// The digest of the module file.
    pub module: Digest,
    /// The size of the module file.
    pub bytes: u64,
}

/// A client of OCI registries. Cheap to clone; clones share connections and tokens.
#[derive(Debug, Clone)]
pub struct Registries {
    transport: Arc<Transport>,
}

impl Registries {
    /// Makes a client. Nothing is asked of the network yet.
    pub fn new(access: Access) -> Result<Self, TransferError> {
        let transport = Arc::new(Transport::new(access)?);
        Ok(Self { transport })
    }

    /// What a reference names now. Asks the registry, except for a pinned digest that the store knows.
    ///
    /// For a tag that has not moved this is one `HEAD` request. Manifests are kept in the store.
    pub async fn resolve(
        &self,
        reference: &Reference,
        store: &ModuleStore,
    ) -> Result<Version, TransferError> {
        if let Some(pin) = reference.pin() {
            return match self.known(reference, pin, store).await? {
                Some(version) => Ok(version),
                None => self.resolve_pin(reference, pin, store).await,
            };
        }
        let manifest = self.tagged(reference, store).await?;
        let version = self.follow(reference, manifest, store).await?;
        let (keeping, text) = (store.clone(), reference.to_string());
        blocking(move || keeping.tag(&text, &manifest)).await?;
        Ok(version)
    }

    /// What a reference named when it was last resolved, by this or another process. Asks nobody but the store.
    pub async fn last_resolved(
        &self,
        reference: &Reference,
        store: &ModuleStore,
    ) -> Result<Option<Version>, TransferError> {
        let digest = match reference.pin() {
            Some(pin) => Some(pin),
            None => store.tagged(&reference.to_string())?,
        };
        match digest {
            Some(digest) => self.known(reference, digest, store).await,
            None => Ok(None),
        }
    }

    /// The module of a version: from the store, else from the registry by way of the store.
    pub async fn fetch(
        &self,
        reference: &Reference,
        version: &Version,
        store: &ModuleStore,
        watch: &Watch,
    ) -> Result<KeptModule, TransferError> {
        let wanted = Wanted {
            digest: version.module,
            bytes: version.bytes,
        };
        download::fetch(&self.transport, reference, wanted, store, watch).await
    }

    /// Publishes a WebAssembly file, with annotations on its manifest, under a reference's tag.
    ///
    /// What the registry has already is not sent again. Publishing the same again gives the same digests.
    pub async fn publish(
        &self,
        reference: &Reference,
        wasm: Bytes,
        annotations: BTreeMap<String, String>,
        watch: &Watch,
    ) -> Result<Version, TransferError> {
        let (Some(tag), None) = (reference.tag(), reference.pin()) else {
            return Err(TransferError::NoTag(reference.to_string()));
        };
        let artifact = Artifact::new(&wasm, annotations).map_err(TransferError::NotWasm)?;
        let transport = &self.transport;
        let config = Bytes::from(artifact.config);
        transport
            .put_blob(reference, &config, &Watch::nobody())
            .await?;
        let module = transport.put_blob(reference, &wasm, watch).await?;
        let manifest = sha256(&artifact.manifest);
        let url = transport.url(reference, &format!("manifests/{tag}"))?;
        let scope = Scope::Push(reference.repository().to_owned());
        let mut put = Call::new(
            Method::PUT,
            url,
            scope,
            format!("the manifest of {reference}"),
        );
        let kind = HeaderValue::from_static(MANIFEST_TYPE);
        put.headers.insert(CONTENT_TYPE, kind);
        put.body = Some(Upload {
            bytes: artifact.manifest.into(),
            watch: Watch::nobody(),
        });
        let response = transport.call(&put, &[]).await?;
        transport.stored(&response, &manifest, &put.what)?;
        Ok(Version {
            manifest: Some(manifest),
            module,
            bytes: wasm.len() as u64,
        })
    }

    /// The version of a digest, of a manifest or of a module, as far as the store knows.
    async fn known(
        &self,
        reference: &Reference,
        digest: Digest,
        store: &ModuleStore,
    ) -> Result<Option<Version>, TransferError> {
        let mut next = digest;
        // An index leads to a manifest, and that to a module.
        for _ in 0..2 {
            let Some(bytes) = store.manifest(&next)? else {
                break;
            };
            match read(reference, &bytes)? {
                Manifest::Module {
                    digest: module,
                    bytes,
                } => {
                    let manifest = Some(digest);
                    return Ok(Some(Version {
                        manifest,
                        module,
                        bytes,
                    }));
                }
                Manifest::Index { digest } => next = digest,
            }
        }
        let bytes = store.module_bytes(&digest)?;
        Ok(bytes.map(|bytes| Version {
            manifest: None,
            module: digest,
            bytes,
        }))
    }

    /// Asks the registry for what a digest is: a manifest's, or else a module's.
    async fn resolve_pin(
        &self,
        reference: &Reference,
        pin: Digest,
        store: &ModuleStore,
    ) -> Result<Version, TransferError> {
        let call = self.manifest_call(reference, Method::GET, &pin.to_string())?;
        let response = match self.transport.once(&call, &[]).await {
            Ok(response) => response,
            // Registries answer 404 for the digest of a blob, and some a failure of their own.
            Err(error @ (TransferError::NotFound { .. } | TransferError::Status { .. })) => {
                match download::size(&self.transport, reference, &pin).await {
                    Ok(bytes) => {
                        return Ok(Version {
                            manifest: None,
                            module: pin,
                            bytes,
                        });
                    }
                    Err(_) if error.is_temporary() => self.transport.call(&call, &[]).await?,
                    Err(_) => return Err(error),
                }
            }
            Err(error) if error.is_temporary() => self.transport.call(&call, &[]).await?,
            Err(error) => return Err(error),
        };
        self.take_manifest(&call, response, pin, store).await?;
        self.follow(reference, pin, store).await
    }

    /// From the digest of a manifest or an index to the module.
    async fn follow(
        &self,
        reference: &Reference,
        digest: Digest,
        store: &ModuleStore,
    ) -> Result<Version, TransferError> {
        let mut next = digest;
        for _ in 0..2 {
            let bytes = match store.manifest(&next)? {
                Some(bytes) => bytes,
                None => self.manifest(reference, next, store).await?,
            };
            match read(reference, &bytes)? {
                Manifest::Module {
                    digest: module,
                    bytes,
                } => {
                    let manifest = Some(digest);
                    return Ok(Version {
                        manifest,
                        module,
                        bytes,
                    });
                }
                Manifest::Index { digest } => next = digest,
            }
        }
        Err(TransferError::Manifest {
            reference: reference.to_string(),
            reason: "it is an index of indexes".to_owned(),
        })
    }

    /// The digest of the manifest that a tag names now.
    async fn tagged(
        &self,
        reference: &Reference,
        store: &ModuleStore,
    ) -> Result<Digest, TransferError> {
        let tag = reference.tag().unwrap_or_default();
        let head = self.manifest_call(reference, Method::HEAD, tag)?;
        // Some registries know no HEAD, and some give no digest with it.
        let response = self
            .transport
            .call(&head, &[StatusCode::METHOD_NOT_ALLOWED])
            .await?;
        let named = response.headers().get("docker-content-digest");
        if let Some(digest) = named.and_then(|value| value.to_str().ok()?.parse().ok()) {
            return Ok(digest);
        }
        let get = self.manifest_call(reference, Method::GET, tag)?;
        let response = self.transport.call(&get, &[]).await?;
        let bytes = self
            .transport
            .body(response, MANIFEST_BYTES_MAX, &get.what)
            .await?;
        let store = store.clone();
        Ok(blocking(move || store.put_manifest(&bytes)).await?)
    }

    /// Fetches a manifest by its digest into the store.
    async fn manifest(
        &self,
        reference: &Reference,
        digest: Digest,
        store: &ModuleStore,
    ) -> Result<Bytes, TransferError> {
        let call = self.manifest_call(reference, Method::GET, &digest.to_string())?;
        let response = self.transport.call(&call, &[]).await?;
        self.take_manifest(&call, response, digest, store).await
    }

    /// Takes a manifest that is the one of this digest into the store.
    async fn take_manifest(
        &self,
        call: &Call,
        response: Response,
        digest: Digest,
        store: &ModuleStore,
    ) -> Result<Bytes, TransferError> {
        let host = host_of(response.url());
        let bytes = self
            .transport
            .body(response, MANIFEST_BYTES_MAX, &call.what)
            .await?;
        let got = sha256(&bytes);
        if got != digest {
            let wanted = digest;
            return Err(TransferError::Digest { host, wanted, got });
        }
        let (store, keeping) = (store.clone(), bytes.clone());
        blocking(move || store.put_manifest(&keeping)).await?;
        Ok(bytes)
    }

    fn manifest_call(
        &self,
        reference: &Reference,
        method: Method,
        name: &str,
    ) -> Result<Call, TransferError> {
        let url = self
            .transport
            .url(reference, &format!("manifests/{name}"))?;
        let scope = Scope::Pull(reference.repository().to_owned());
        let what = format!("manifest {name} of {}", reference.repository());
        Ok(Call::new(method, url, scope, what).accept(ACCEPTED))
    }
}

fn read(reference: &Reference, bytes: &[u8]) -> Result<Manifest, TransferError> {
    Manifest::read(bytes).map_err(|reason| TransferError::Manifest {
        reference: reference.to_string(),
        reason,
    })
}

//! The layout in which registries hold WebAssembly, as CNCF's TAG Runtime lays it down.
//!
//! ```text
//! manifest   application/vnd.oci.image.manifest.v1+json, its digest is what a reference pins
//! ├─ config  application/vnd.wasm.config.v0+json: architecture wasm, os wasip1 or wasip2, the layer's digest,
//! │          and for a component its imports and exports
//! └─ layer   application/wasm: the module file, so that the layer's digest is the module's
//! ```
//!
//! What we write depends on the module and its annotations alone, so that publishing twice gives one
//! digest: the time of creation that the layout demands is the beginning of the epoch.
//! Of what others write only the manifest is needed, and exactly one layer of WebAssembly in it.

use std::collections::BTreeMap;

use oci_client::manifest::{OciDescriptor, OciImageIndex, OciImageManifest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tidegate_inference::Digest;
use wasmparser::{Encoding, Parser, Payload};

use crate::modules::sha256;

pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
const LAYER_TYPE: &str = "application/wasm";

/// Layer types that mean a WebAssembly file: the layout's, and that of the tools that were there before it.
const LAYER_TYPES: [&str; 2] = [LAYER_TYPE, "application/vnd.wasm.content.layer.v1+wasm"];

/// What a registry is asked for.
pub(crate) const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";

/// Most bytes of a manifest, as registries have it.
pub(crate) const MANIFEST_BYTES_MAX: usize = 4 << 20;

/// Most imports and exports that the configuration of a component lists.
const EXTERNS_MAX: usize = 1000;

/// The platforms of an index that are WebAssembly, the best first.
const SYSTEMS: [&str; 4] = ["wasip2", "wasip1", "wasi", "unknown"];

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    layer_digests: [String; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<Component>,
}

#[derive(Debug, Serialize)]
struct Component {
    exports: Vec<String>,
    imports: Vec<String>,
}

/// A module, ready to be published.
#[derive(Debug)]
pub(crate) struct Artifact {
    pub(crate) config: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
}

impl Artifact {
    /// Describes a WebAssembly file. The error says why it is none.
    pub(crate) fn new(wasm: &[u8], annotations: BTreeMap<String, String>) -> Result<Self, String> {
        let layer = sha256(wasm).to_string();
        let component = outline(wasm)?;
        let config = Config {
            created: "1970-01-01T00:00:00Z",
            architecture: "wasm",
            os: if component.is_some() {
                "wasip2"
            } else {
                "wasip1"
            },
            layer_digests: [layer.clone()],
            component,
        };
        let config = serde_json::to_vec(&config).map_err(|error| error.to_string())?;
        let describe = |kind: &str, digest: String, bytes: usize| OciDescriptor {
            media_type: kind.to_owned(),
            digest,
            size: i64::try_from(bytes).unwrap_or(i64::MAX),
            ..OciDescriptor::default()
        };
        let manifest = OciImageManifest {
            media_type: Some(MANIFEST_TYPE.to_owned()),
            config: describe(CONFIG_TYPE, sha256(&config).to_string(), config.len()),
            layers: vec![describe(LAYER_TYPE, layer, wasm.len())],
            annotations: (!annotations.is_empty()).then_some(annotations),
            ..OciImageManifest::default()
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|error| error.to_string())?;
        Ok(Self { config, manifest })
    }
}

/// The imports and exports of a component; nothing for a core module.
fn outline(wasm: &[u8]) -> Result<Option<Component>, String> {
    let (mut exports, mut imports) = (Vec::new(), Vec::new());
    let mut depth = 0_usize;
    let mut is_component = false;
    for payload in Parser::new(0).parse_all(wasm) {
        match payload.map_err(|error| error.to_string())? {
            Payload::Version { encoding, .. } if depth == 0 => {
                is_component = encoding == Encoding::Component;
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(|error| error.to_string())?;
                    imports.push(import.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(|error| error.to_string())?;
                    exports.push(export.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    imports.truncate(EXTERNS_MAX);
    exports.truncate(EXTERNS_MAX);
    Ok(is_component.then_some(Component { exports, imports }))
}

/// What a manifest says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Manifest {
    /// It is a module's, with the digest and size of the module file.
    Module { digest: Digest, bytes: u64 },
    /// It lists the manifests of several platforms, of which this is WebAssembly's.
    Index { digest: Digest },
}

impl Manifest {
    /// Reads a manifest. The error says why it is no module's.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let value: Value =
            serde_json::from_slice(bytes).map_err(|_| "it is not JSON".to_owned())?;
        // What some take for an index and others for a manifest would have two meanings under one digest.
        match (
            value.get("layers").is_some(),
            value.get("manifests").is_some(),
        ) {
            (true, false) => module(value),
            (false, true) => index(value),
            (true, true) => Err("it is a manifest and an index at once".to_owned()),
            (false, false) => Err("it lists no layers".to_owned()),
        }
    }
}

fn module(value: Value) -> Result<Manifest, String> {
    let manifest = OciImageManifest::deserialize(value).map_err(|error| error.to_string())?;
    check_version(manifest.schema_version)?;
    let [layer] = manifest.layers.as_slice() else {
        let count = manifest.layers.len();
        return Err(format!("it has {count} layers, and a module is one"));
    };
    if !LAYER_TYPES.contains(&layer.media_type.as_str()) {
        let kind: String = layer.media_type.chars().take(100).collect();
        return Err(format!("its layer is {kind:?}, not {LAYER_TYPE}"));
    }
    let digest = layer.digest.parse();
    let digest = digest.map_err(|_| "its layer's digest is no SHA-256".to_owned())?;
    let bytes = u64::try_from(layer.size);
    let bytes = bytes.map_err(|_| format!("its layer has {} bytes", layer.size))?;
    Ok(Manifest::Module { digest, bytes })
}

fn index(value: Value) -> Result<Manifest, String> {
    let index = OciImageIndex::deserialize(value).map_err(|error| error.to_string())?;
    check_version(index.schema_version)?;
    let rank = |system: &str| SYSTEMS.iter().position(|known| *known == system);
    let wasm = index.manifests.iter().filter_map(|entry| {
        let platform = entry.platform.as_ref()?;
        let is_wasm = matches!(
            platform.architecture.to_string().as_str(),
            "wasm" | "wasm32"
        );
        let rank = rank(&platform.os.to_string()).unwrap_or(SYSTEMS.len());
        is_wasm.then_some((rank, entry))
    });
    let (_, entry) = wasm
        .min_by_key(|(rank, _)| *rank)
        .ok_or("it lists several platforms, none of them WebAssembly")?;
    let digest = entry.digest.parse();
    let digest = digest.map_err(|_| "the digest of its WebAssembly is no SHA-256".to_owned())?;
    Ok(Manifest::Index { digest })
}

fn check_version(version: u8) -> Result<(), String> {
    match version {
        2 => Ok(()),
        other => Err(format!("its schema version is {other}, not 2")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CORE: &[u8] = b"\0asm\x01\0\0\0";
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn what_we_write_follows_the_layout_and_reads_back() {
        for (wasm, os) in [(CORE, "wasip1"), (COMPONENT, "wasip2")] {
            let annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
            let artifact = Artifact::new(wasm, annotations.clone()).unwrap();
            let manifest: Value = serde_json::from_slice(&artifact.manifest).unwrap();
            let config: Value = serde_json::from_slice(&artifact.config).unwrap();
            let digest = sha256(wasm);
            let expected = json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {
                    "mediaType": "application/vnd.wasm.config.v0+json",
                    "digest": sha256(&artifact.config).to_string(),
                    "size": artifact.config.len(),
                },
                "layers": [{
                    "mediaType": "application/wasm",
                    "digest": digest.to_string(),
                    "size": 8,
                }],
                "annotations": {"a": "b"},
            });
            assert_eq!(manifest, expected);
            assert_eq!(config["architecture"], "wasm");
            assert_eq!(config["os"], os);
            assert_eq!(config["layerDigests"], json!([digest.to_string()]));
            assert_eq!(config.get("component").is_some(), os == "wasip2");
            let read = Manifest::read(&artifact.manifest).unwrap();
            assert_eq!(read, Manifest::Module { digest, bytes: 8 });
            let again = Artifact::new(wasm, annotations).unwrap();
            assert_eq!(again.manifest, artifact.manifest);
        }
        for no_wasm in [&b""[..], b"\0asm", b"GIF89a", &CORE[..7]] {
            assert!(Artifact::new(no_wasm, BTreeMap::new()).is_err());
        }
    }

    fn layer(kind: &str, digest: &str, size: i64) -> Value {
        json!({"mediaType": kind, "digest": digest, "size": size})
    }

    #[test]
    fn manifests_of_others_are_read() {
        let bare = json!({
            "schemaVersion": 2,
            "config": layer("application/vnd.oci.empty.v1+json", DIGEST, 2),
            "layers": [layer("application/vnd.wasm.content.layer.v1+wasm", DIGEST, 7)],
            "unknown": {"x": [1]},
        });
        let module = Manifest::Module {
            digest: DIGEST.parse().unwrap(),
            bytes: 7,
        };
        assert_eq!(Manifest::read(bare.to_string().as_bytes()).unwrap(), module);
        let platform = |architecture: &str, os: &str, digest: &str| {
            json!({
                "mediaType": MANIFEST_TYPE, "digest": digest, "size": 9,
                "platform": {"architecture": architecture, "os": os},
            })
        };
        let other = DIGEST.replace('0', "1");
        let index = json!({"schemaVersion": 2, "manifests": [
            platform("amd64", "linux", &other),
            platform("wasm", "wasip1", &other),
            platform("wasm", "wasip2", DIGEST),
            {"mediaType": MANIFEST_TYPE, "digest": other, "size": 9},
        ]});
        let digest = DIGEST.parse().unwrap();
        assert_eq!(
            Manifest::read(index.to_string().as_bytes()).unwrap(),
            Manifest::Index { digest }
        );
    }

    #[test]
    fn what_is_no_modules_manifest_says_why() {
        let image = |layers: Value| json!({"schemaVersion": 2, "config": layer("x", DIGEST, 2), "layers": layers});
        let wasm = layer(LAYER_TYPE, DIGEST, 7);
        for (text, wrong) in [
            (String::new(), "not JSON"),
            ("[]".to_owned(), "no layers"),
            ("{}".to_owned(), "no layers"),
            (image(json!([])).to_string(), "0 layers"),
            (image(json!([wasm, wasm])).to_string(), "2 layers"),
            (
                image(json!([layer("text/html", DIGEST, 7)])).to_string(),
                "text/html",
            ),
            (
                image(json!([layer(LAYER_TYPE, "sha256:12", 7)])).to_string(),
                "no SHA-256",
            ),
            (
                image(json!([layer(LAYER_TYPE, "sha512:12", 7)])).to_string(),
                "no SHA-256",
            ),
            (
                image(json!([layer(LAYER_TYPE, DIGEST, -1)])).to_string(),
                "-1 bytes",
            ),
            (image(json!("x")).to_string(), "invalid type"),
            (
                json!({"schemaVersion": 1, "config": wasm, "layers": [wasm]}).to_string(),
                "schema version is 1",
            ),
            (
                json!({"schemaVersion": 2, "config": wasm, "layers": [wasm], "manifests": []})
                    .to_string(),
                "at once",
            ),
            (
                json!({"schemaVersion": 2, "manifests": []}).to_string(),
                "none of them",
            ),
        ] {
            let error = Manifest::read(text.as_bytes()).unwrap_err();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }
}

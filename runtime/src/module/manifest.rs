//! What a module says of itself, and the rules that make it believable.
//!
//! The manifest is JSON with the fields below and no others, so a field that a later format adds is
//! refused rather than ignored. Names of models and graphs go into addresses, labels and section names:
//! they are ASCII letters, digits, `.`, `_` and `-`. Names of tensors are whatever the graph's author
//! wrote, without control characters.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tidegate_inference::{
    Digest, Isolation, ModelMetadata, NAME_BYTES_MAX, RANK_MAX, TensorSpec, Version,
};

use super::GRAPHS_MAX;

/// The format that this code reads and writes.
const FORMAT: u32 = 1;

/// Most inputs, and most outputs, of a module.
pub const TENSORS_MAX: usize = 128;

/// Most labels of a module.
pub const LABELS_MAX: usize = 64;

/// Longest licence expression, and key or value of a label.
const TEXT_BYTES_MAX: usize = 256;

/// What a module says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// Format version: 1.
    pub format: u32,
    /// The name by which requests ask for it.
    pub name: String,
    /// Version of the model, such as `1.4.0`; always a [`Version`].
    pub version: String,
    /// SPDX licence expression of code and weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Where the graphs want to run; a host's policy may be stricter.
    #[serde(default, skip_serializing_if = "is_default")]
    pub isolation: Isolation,
    /// What a request gives.
    pub inputs: Vec<TensorSpec>,
    /// What a reply gives, in this order.
    pub outputs: Vec<TensorSpec>,
    /// The graphs in the file.
    #[serde(default)]
    pub graphs: Vec<GraphEntry>,
    /// What the module needs at most; a host may allow less.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: ModuleLimits,
    /// Free text by key, for people and registries.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A graph that the file carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphEntry {
    /// The name by which the guest loads it, and of its section.
    pub name: String,
    /// Format of its bytes.
    pub encoding: GraphEncoding,
    /// SHA-256 of its bytes, as 64 hexadecimal digits.
    #[serde(with = "hex")]
    pub sha256: Digest,
}

/// Format of a graph's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GraphEncoding {
    /// A serialised ONNX `ModelProto`.
    Onnx,
}

/// Limits that a module sets itself, below the host's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModuleLimits {
    /// Linear memory of the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Wall-clock time of one request, guest and graphs together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_ms: Option<u64>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or not these fields.
    #[error("{source}")]
    Json {
        /// What and where.
        source: serde_json::Error,
    },
    /// Another format than this code reads.
    #[error("format is {got}, this version reads {FORMAT}")]
    Format {
        /// The format given.
        got: u32,
    },
    /// A field that breaks its rule.
    #[error("{field} {value:?}: {rule}")]
    Field {
        /// The field.
        field: &'static str,
        /// What it says, shortened.
        value: String,
        /// What it may say.
        rule: &'static str,
    },
}

impl Manifest {
    /// A manifest of a model without graphs, limits or labels.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        version: impl Into<String>,
        inputs: Vec<TensorSpec>,
        outputs: Vec<TensorSpec>,
    ) -> Self {
        Self {
            format: FORMAT,
            name: name.into(),
            version: version.into(),
            licence: None,
            isolation: Isolation::Host,
            inputs,
            outputs,
            graphs: Vec::new(),
            limits: ModuleLimits::default(),
            labels: BTreeMap::new(),
        }
    }

    /// Reads a manifest and checks every field.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self =
            serde_json::from_slice(json).map_err(|source| ManifestError::Json { source })?;
        if manifest.format != FORMAT {
            let got = manifest.format;
            return Err(ManifestError::Format { got });
        }
        plain_name("name", &manifest.name)?;
        if manifest.version.parse::<Version>().is_err() {
            let rule = "must look like 1.4.0 or 1.4.0-rc.1";
            return refuse("version", &manifest.version, rule);
        }
        if let Some(licence) = &manifest.licence {
            text("licence", licence)?;
        }
        tensors("inputs", "input", &manifest.inputs)?;
        tensors("outputs", "output", &manifest.outputs)?;
        if manifest.outputs.is_empty() {
            return refuse("outputs", "[]", "must name at least one output");
        }
        few("graphs", manifest.graphs.len(), GRAPHS_MAX)?;
        let mut names = BTreeSet::new();
        for graph in &manifest.graphs {
            plain_name("graph", &graph.name)?;
            if !names.insert(&graph.name) {
                return refuse("graph", &graph.name, "is listed twice");
            }
        }
        few("labels", manifest.labels.len(), LABELS_MAX)?;
        for (key, value) in &manifest.labels {
            text("label", key)?;
            text("label", value)?;
        }
        Ok(manifest)
    }

    /// The manifest as it is written into a module.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings, numbers and maps with text keys become JSON")
    }

    /// The same facts in the terms of the inference protocol.
    #[must_use]
    pub fn metadata(&self, platform: &'static str) -> ModelMetadata {
        ModelMetadata {
            name: self.name.clone(),
            version: self.version.clone(),
            platform,
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
        }
    }
}

fn refuse<T>(field: &'static str, value: &str, rule: &'static str) -> Result<T, ManifestError> {
    Err(ManifestError::Field {
        field,
        value: value.chars().take(64).collect(),
        rule,
    })
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-".contains(c)
}

fn plain_name(field: &'static str, name: &str) -> Result<(), ManifestError> {
    let starts_plain = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    let fits = name.len() <= NAME_BYTES_MAX;
    if starts_plain && fits && name.chars().all(is_plain) {
        return Ok(());
    }
    let rule =
        "must be 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit";
    refuse(field, name, rule)
}

fn text(field: &'static str, value: &str) -> Result<(), ManifestError> {
    if value.is_empty() || value.len() > TEXT_BYTES_MAX || value.contains(char::is_control) {
        let rule = "must be 1 to 256 bytes without control characters";
        return refuse(field, value, rule);
    }
    Ok(())
}

fn few(field: &'static str, count: usize, limit: usize) -> Result<(), ManifestError> {
    if count > limit {
        return refuse(field, &format!("{count} entries"), "are too many");
    }
    Ok(())
}

fn tensors(
    list: &'static str,
    field: &'static str,
    specs: &[TensorSpec],
) -> Result<(), ManifestError> {
    few(list, specs.len(), TENSORS_MAX)?;
    let mut names = BTreeSet::new();
    for TensorSpec { name, shape, .. } in specs {
        if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control) {
            let rule = "must be 1 to 128 bytes without control characters";
            return refuse(field, name, rule);
        }
        if !names.insert(name) {
            return refuse(field, name, "is listed twice");
        }
        if shape.len() > RANK_MAX {
            return refuse(field, name, "has more than 8 axes");
        }
        if shape.iter().any(|extent| *extent < -1) {
            return refuse(field, name, "has an extent below -1");
        }
    }
    Ok(())
}

/// A digest as bare hexadecimal digits.
mod hex {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use tidegate_inference::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(digest.to_string().trim_start_matches("sha256:"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(from)?;
        format!("sha256:{text}")
            .parse()
            .map_err(|_| D::Error::custom("sha256 must be 64 lower-case hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"format":1,"name":"face","version":"1.0.0","licence":"MIT",
        "inputs":[{"name":"image","datatype":"BYTES","shape":[1]}],
        "outputs":[{"name":"boxes","datatype":"FP32","shape":[-1,4]}],
        "graphs":[{"name":"g","encoding":"onnx","sha256":"00"}],
        "limits":{"memory-bytes":65536},"labels":{"task":"detection"}}"#;

    fn good() -> String {
        GOOD.replace("\"00\"", &format!("\"{}\"", "0a".repeat(32)))
    }

    #[test]
    fn a_manifest_reads_back_as_written() {
        let manifest = Manifest::parse(good().as_bytes()).unwrap();
        assert_eq!(manifest.limits.memory_bytes, Some(65536));
        assert_eq!(Manifest::parse(&manifest.to_json()).unwrap(), manifest);
    }

    #[test]
    fn isolation_is_the_hosts_unless_it_is_said() {
        let mut manifest = Manifest::parse(good().as_bytes()).unwrap();
        assert_eq!(manifest.isolation, Isolation::Host);
        let json = String::from_utf8(manifest.to_json()).unwrap();
        assert!(!json.contains("isolation"), "{json}");
        manifest.isolation = Isolation::Strict;
        let json = String::from_utf8(manifest.to_json()).unwrap();
        assert!(json.contains(r#""isolation":"strict""#), "{json}");
        assert_eq!(Manifest::parse(json.as_bytes()).unwrap(), manifest);
        check(
            "\"licence\"",
            "\"isolation\":\"none\",\"licence\"",
            "`none`",
        );
    }

    #[track_caller]
    fn check(from: &str, to: &str, message: &str) {
        let json = good().replace(from, to);
        assert_ne!(json, good(), "{from} is not in the manifest");
        let error = Manifest::parse(json.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(message), "{from} -> {to}: {error}");
    }

    #[test]
    fn what_breaks_a_rule_is_named() {
        check("\"format\":1", "\"format\":2", "format is 2");
        check("\"labels\"", "\"lables\"", "unknown field `lables`");
        check("\"face\"", "\"\"", "name \"\"");
        check("\"face\"", "\"../face\"", "name \"../face\"");
        check("1.0.0", "latest", "version \"latest\"");
        check("1.0.0", "1.0rc1", "version \"1.0rc1\"");
        check("\"MIT\"", "\"\"", "licence");
        check("\"image\"", "\"\\u0007\"", "control characters");
        check("[1]", "[1,1,1,1,1,1,1,1,1]", "more than 8 axes");
        check("[-1,4]", "[-2,4]", "below -1");
        check("BYTES", "TEXT", "unknown variant `TEXT`");
        check("onnx", "tflite", "unknown variant `tflite`");
        check("0a0a", "zz0a", "64 lower-case hexadecimal");
        check("65536", "-1", "invalid value");
        check("\"format\":1,", "", "missing field `format`");
        let two = "\"boxes\",\"datatype\":\"FP32\",\"shape\":[]},{\"name\":\"boxes\"";
        check("\"boxes\"", two, "listed twice");
        let none = r#"{"format":1,"name":"a","version":"1","inputs":[],"outputs":[]}"#;
        assert!(Manifest::parse(none.as_bytes()).is_err());
    }
}

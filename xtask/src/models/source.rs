//! The models of a data folder: where each is, and what its description asks of `pack`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// A folder with a model and its samples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// The folder's name, and the model's.
    pub(super) name: String,
    /// Absolute.
    pub(super) folder: PathBuf,
    /// `NAME=VALUE` of each input that `pack` makes part of the graph.
    pub(super) consts: Vec<String>,
    /// `NAME=EXTENTS` of each input whose free axes `pack` settles.
    pub(super) shapes: Vec<String>,
}

/// Every folder in `models` that has a `model.onnx`, by name.
pub(super) fn list(models: &Path) -> Result<Vec<Source>> {
    let models = models
        .canonicalize()
        .with_context(|| format!("there is no folder of models {}", models.display()))?;
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(&models)? {
        let folder = entry?.path();
        if folder.join("model.onnx").is_file() {
            sources.push(read(folder)?);
        }
    }
    ensure!(
        !sources.is_empty(),
        "no folder in {} has a model.onnx",
        models.display()
    );
    sources.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(sources)
}

fn read(folder: PathBuf) -> Result<Source> {
    let name = folder.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} has a name that is no text", folder.display()))?;
    let name = name.to_owned();
    let path = folder.join("meta.json");
    let mut meta = Value::Null;
    if path.exists() {
        let text = std::fs::read(&path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        meta = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no JSON", path.display()))?;
    }
    let pairs =
        |key: &str| pairs(&meta[key]).with_context(|| format!("{key} in {}", path.display()));
    Ok(Source {
        consts: pairs("consts")?,
        shapes: pairs("shapes")?,
        name,
        folder,
    })
}

/// The texts `NAME=...` of a list that may be missing.
fn pairs(list: &Value) -> Result<Vec<String>> {
    let list = match list {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) => list,
        other => bail!("{other} is no list"),
    };
    let pair = |entry: &Value| {
        let text = entry.as_str().filter(|text| text.contains('='));
        let text = text.with_context(|| format!("{entry} is no text NAME=VALUE"))?;
        Ok(text.to_owned())
    };
    list.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pack_needs_is_a_list_of_pairs_or_nothing() {
        let read = |text: &str| pairs(&serde_json::from_str(text).unwrap());
        assert_eq!(read("null").unwrap(), Vec::<String>::new());
        assert_eq!(read("[]").unwrap(), Vec::<String>::new());
        assert_eq!(
            read(r#"["sr=16000", "x=1,3"]"#).unwrap(),
            ["sr=16000", "x=1,3"]
        );
        for wrong in [r#"{"sr": 16000}"#, r#"["sr"]"#, "[1]", "true"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}

//! The models that this agent serves: loaded once at start, found by name, numbered for the controller.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_control::ModelIndex;
use tidegate_inference::{Failure, FailureKind, ModelMetadata};
use tidegate_runtime::{LoadError, Model, Runtime};

/// Why the models could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadModelsError {
    /// A module file cannot be read or is refused.
    #[error("failed to load module {}", path.display())]
    Load {
        /// The module file.
        path: PathBuf,
        /// Why.
        source: Box<LoadError>,
    },
    /// Two modules have the same model name.
    #[error("modules {} and {} are both named {name:?}", first.display(), second.display())]
    Duplicate {
        /// The name.
        name: String,
        /// The module listed first.
        first: PathBuf,
        /// The module listed later.
        second: PathBuf,
    },
}

/// One model, ready to run.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) index: ModelIndex,
    pub(crate) model: Arc<Model>,
}

impl Served {
    pub(crate) fn metadata(&self) -> &ModelMetadata {
        self.model.metadata()
    }
}

/// All models, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct Models {
    served: Vec<Arc<Served>>,
    by_name: BTreeMap<String, ModelIndex>,
}

impl Models {
    /// Loads every module: seconds of CPU each, so not on an executor.
    pub(crate) fn load(runtime: &Runtime, paths: &[PathBuf]) -> Result<Self, LoadModelsError> {
        let mut models = Self {
            served: Vec::with_capacity(paths.len()),
            by_name: BTreeMap::new(),
        };
        for path in paths {
            let model = runtime
                .load_file(path)
                .map_err(|source| LoadModelsError::Load {
                    path: path.clone(),
                    source: Box::new(source),
                })?;
            models.add(model, path, paths)?;
        }
        Ok(models)
    }

    fn add(
        &mut self,
        model: Arc<Model>,
        path: &Path,
        paths: &[PathBuf],
    ) -> Result<(), LoadModelsError> {
        let manifest = model.manifest();
        let name = manifest.name.clone();
        let index = ModelIndex(self.served.len());
        if let Some(first) = self.by_name.insert(name.clone(), index) {
            return Err(LoadModelsError::Duplicate {
                name,
                first: paths[first.0].clone(),
                second: path.to_owned(),
            });
        }
        tracing::info!(
            model = name,
            version = manifest.version,
            digest = %model.digest(),
            "model loaded"
        );
        self.served.push(Arc::new(Served { index, model }));
        Ok(())
    }

    /// The model of this name, and of this version where one is asked for.
    pub(crate) fn find(&self, name: &str, version: Option<&str>) -> Result<&Arc<Served>, Failure> {
        let not_found = |message| Failure::new(FailureKind::NotFound, message);
        let index = self
            .by_name
            .get(name)
            .ok_or_else(|| not_found(format!("there is no model {name:?}")))?;
        let served = &self.served[index.0];
        let has = &served.metadata().version;
        match version {
            Some(wanted) if wanted != has => {
                let message = format!("model {name:?} has version {has:?}, not {wanted:?}");
                Err(not_found(message))
            }
            Some(_) | None => Ok(served),
        }
    }

    /// `name` as this process holds it where a model has it, or the empty string: safe as a label.
    pub(crate) fn known_name(&self, name: &str) -> &str {
        self.by_name
            .get_key_value(name)
            .map_or("", |(name, _)| name)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Served>> {
        self.served.iter()
    }
}

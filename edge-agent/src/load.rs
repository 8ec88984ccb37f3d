//! What an agent has before it serves: its runtime, its memory, and the modules on this machine.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use tidegate_control::ModelIndex;
use tidegate_daemon::state::StateFolder;
use tidegate_registry::{
    Access, MODULE_BYTES_MAX, ModuleStore, Registries, Source, docker_config_folder,
};
use tidegate_runtime::module::FILE_BYTES_MAX;
use tidegate_runtime::{CacheConfig, Runtime, RuntimeConfig, SLOTS_MAX};
use tidegate_store::FolderError;

use crate::StartError;
use crate::config::{Config, Module};
use crate::models::Models;
use crate::supply::{self, Memory, Origin, Pace, Remembered, Workshop};

// What a registry gives, the runtime reads, and relays can be offered.
const _: () = assert!(
    MODULE_BYTES_MAX == FILE_BYTES_MAX as u64
        && MODULE_BYTES_MAX <= tidegate_wire::MODULE_BYTES_MAX
);

/// The models of an agent, and what brings in others.
pub(crate) struct Loaded {
    pub(crate) models: Models,
    pub(crate) memory: Arc<Memory>,
    pub(crate) workshop: Arc<Workshop>,
    pub(crate) origins: Vec<Origin>,
}

/// Loads every module file, in the order of the configuration. Modules of registries come later.
pub(crate) async fn load(config: &Config) -> Result<Loaded, StartError> {
    let opening = {
        let config = config.clone();
        // Where another process changes the folder, this waits for it.
        tokio::task::spawn_blocking(move || open(&config))
    };
    let Opened {
        store,
        memory,
        runtime,
    } = opening
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    let workshop = Workshop::new(runtime, config.trust.clone(), Arc::clone(&memory));
    let models = Models::new(config.rollout.policy, config.modules.len());
    let mut client = None;
    let mut origins = Vec::with_capacity(config.modules.len());
    for (index, module) in config.modules.iter().enumerate() {
        origins.push(match module {
            Module::File(path) => {
                let index = ModelIndex(index);
                load_file(path, index, config, &workshop, &models, &memory).await?
            }
            Module::Registry(reference) => {
                let store = match &store {
                    Ok(Some(store)) => store.clone(),
                    Ok(None) => return Err(StartError::NoState),
                    Err(_) => break,
                };
                let client = match &client {
                    Some(client) => client,
                    None => client.insert(open_client(config)?),
                };
                let source = Source::new(reference.clone(), Registries::clone(client), store);
                Origin::registry(module.to_string(), source)
            }
        });
    }
    match store {
        Ok(_) => {}
        Err(source) if origins.len() < config.modules.len() => {
            return Err(StartError::Store { source });
        }
        Err(error) => {
            let error: &dyn Error = &error;
            tracing::warn!(error, "no copies of modules are kept");
        }
    }
    Ok(Loaded {
        models,
        memory,
        workshop: Arc::new(workshop),
        origins,
    })
}

/// What an agent has of its state folder.
struct Opened {
    store: Result<Option<ModuleStore>, FolderError>,
    memory: Arc<Memory>,
    runtime: Arc<Runtime>,
}

fn open(config: &Config) -> Result<Opened, StartError> {
    let must_remember = config.trust.wants_signatures();
    let state = match must_remember {
        true => Some(config.state.try_open().map_err(forgetful)?),
        false => config.state.open(),
    };
    let store = state
        .as_ref()
        .map(|state| ModuleStore::open(state.modules(), state.modules_bytes_max()))
        .transpose();
    let sources: Vec<_> = config.modules.iter().map(ToString::to_string).collect();
    let memory = Memory::open(
        state.as_ref().map(StateFolder::path),
        store.as_ref().ok().cloned().flatten(),
        &sources,
    );
    let memory = memory.map_err(|source| StartError::Memory { source })?;
    if must_remember {
        memory.keep().map_err(forgetful)?;
    }
    let cache = state.map(|folder| CacheConfig {
        folder: folder.path().to_owned(),
        bytes_max: folder.code_bytes_max(),
    });
    let runtime = Runtime::start(RuntimeConfig {
        cache,
        vetting: config.vetting.clone(),
        tract_guest: config.tract_guest.clone(),
        // One more than the slots, for what the workshop runs.
        ..RuntimeConfig::new((config.policy.slots + 1).min(SLOTS_MAX))
    });
    Ok(Opened {
        store,
        memory: Arc::new(memory),
        runtime: runtime.map_err(|source| StartError::Runtime { source })?,
    })
}

fn forgetful(source: impl Into<Box<dyn Error + Send + Sync>>) -> StartError {
    let source = source.into();
    StartError::Forgetful { source }
}

/// Serves a module file in the version that is there, or in the one before where that was rolled back.
async fn load_file(
    path: &Path,
    index: ModelIndex,
    config: &Config,
    workshop: &Workshop,
    models: &Models,
    memory: &Arc<Memory>,
) -> Result<Origin, StartError> {
    let path_of = || path.to_owned();
    let mut origin = Origin::file(path_of());
    let unreadable = |source| {
        let path = path_of();
        StartError::ReadModule { path, source }
    };
    // Of a file that was never looked at, everything is new.
    let offer = origin.look().await.map_err(unreadable)?;
    let offer = offer.expect("a first look finds what is there");
    let fetched = origin.take(offer).await.map_err(unreadable)?;
    let Remembered { good, refused } = memory.of(&origin.to_string());
    let mut fetched = fetched;
    if refused.contains(&fetched.digest) {
        let digest = fetched.digest;
        tracing::warn!(module = %origin, %digest, "the file is a version that was rolled back before");
        if let Some(good) = good
            && let Some(kept) = supply::from_store(memory, good).await
        {
            fetched = kept;
        }
    }
    let prepared = workshop
        .prepare(fetched, Pace::Awaited)
        .await
        .map_err(|source| {
            let (path, source) = (path_of(), Box::new(source));
            StartError::LoadModule { path, source }
        })?;
    let manifest = prepared.model.manifest();
    tracing::info!(
        model = manifest.name,
        version = manifest.version,
        digest = %prepared.model.digest(),
        "model loaded"
    );
    let installed = models.install(index, prepared, refused);
    installed.map_err(|taken| StartError::SameName {
        name: taken.name,
        first: config.modules[taken.first.0].to_string(),
        second: path_of(),
    })?;
    Ok(origin)
}

fn open_client(config: &Config) -> Result<Registries, StartError> {
    let access = Access {
        authorities: config.registry_ca.clone(),
        docker_config: docker_config_folder(),
        ..Access::default()
    };
    Registries::new(access).map_err(|source| StartError::Registry { source })
}

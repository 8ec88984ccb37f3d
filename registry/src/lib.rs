//! Where modules come from: OCI registries, the local store, signatures and trust.

pub mod signature;
pub mod trust;

mod modules;
mod oci;
mod source;

pub use modules::{KeptModule, MODULE_BYTES_MAX, ModuleStore};
pub use oci::{
    Access, HELPER_TIME_MAX, ParseReferenceError, Patience, ReadCredentialsError, Reference,
    Registries, TransferError, Version, Watch, docker_config_folder,
};
pub use source::Source;

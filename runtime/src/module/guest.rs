//! Makes a component of whatever a guest's compiler wrote.
//!
//! Compilers without a component target write a core module, in which bindings leave their world as
//! a custom section; wit-component wraps it. A guest written without bindings is taken to be of the
//! world of a module, by the names of its imports and exports. A component is taken as it is.

use wasmparser::{Parser, Payload};
use wit_component::StringEncoding;
use wit_parser::Resolve;

use super::FILE_BYTES_MAX;

const NN_WIT: &str = include_str!("../../../modules/wit/deps/wasi-nn/nn.wit");
const MODEL_WIT: &str = include_str!("../../../modules/wit/model.wit");

/// What the names of the sections begin with in which bindings leave their world.
const WORLD_SECTION_PREFIX: &str = "component-type";

/// Why a guest could not be made a component.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// More than [`FILE_BYTES_MAX`].
    #[error("the guest has more than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// Neither a core module nor a component.
    #[error("the guest is not WebAssembly")]
    NotWasm,
    /// Cut off, or malformed.
    #[error("the guest is not whole WebAssembly")]
    Malformed(#[source] wasmparser::BinaryReaderError),
    /// wit-component refused it, or it does not fit its world.
    #[error("failed to make a component of the guest: {reason}")]
    Encode {
        /// What it says, causes included.
        reason: String,
    },
}

/// A component of world `tidegate:model/module` from a core module or component.
///
/// What the component imports is checked when it is loaded, not here.
pub fn component_from_guest(guest: &[u8]) -> Result<Vec<u8>, GuestError> {
    if guest.len() > FILE_BYTES_MAX {
        return Err(GuestError::TooLarge);
    }
    let is_component = Parser::is_component(guest);
    if !is_component && !Parser::is_core_wasm(guest) {
        return Err(GuestError::NotWasm);
    }
    let has_world = has_world(guest)?;
    if is_component {
        return Ok(guest.to_vec());
    }
    let encode = || {
        let mut core = guest.to_vec();
        if !has_world {
            let mut resolve = Resolve::default();
            resolve.push_source("nn.wit", NN_WIT)?;
            let package = resolve.push_source("model.wit", MODEL_WIT)?;
            let world = resolve.select_world(&[package], Some("module"))?;
            let encoding = StringEncoding::UTF8;
            wit_component::embed_component_metadata(&mut core, &resolve, world, encoding)?;
        }
        wit_component::ComponentEncoder::default()
            .module(&core)?
            .validate(true)
            .encode()
    };
    encode().map_err(|error| GuestError::Encode {
        reason: format!("{error:#}"),
    })
}

/// Whether bindings left their world in a guest, which must be whole.
fn has_world(guest: &[u8]) -> Result<bool, GuestError> {
    let mut found = false;
    for payload in Parser::new(0).parse_all(guest) {
        if let Payload::CustomSection(section) = payload.map_err(GuestError::Malformed)? {
            found |= section.name().starts_with(WORLD_SECTION_PREFIX);
        }
    }
    Ok(found)
}

//! The vocabulary of inference that every other crate speaks.
//!
//! A request is the same thing whether it came by REST, runs in the sandbox here, or crosses to a
//! relay; so tensors, requests, replies and failures are defined once, without IO, engine or wire.

mod digest;
mod failure;
mod model;
mod request;
mod tensor;
mod version;

pub use digest::{Digest, ParseDigestError};
pub use failure::{Failure, FailureKind};
pub use model::{Isolation, ModelMetadata, TensorSpec, select_outputs};
pub use request::{Placement, Priority, Reason, Reply, Request, TIME_MAX, Timings};
pub use tensor::{
    Dtype, NAME_BYTES_MAX, NamedTensor, ParseDtypeError, RANK_MAX, Shape, Tensor, TensorError,
    byte_elements,
};
pub use version::{ParseVersionError, VERSION_BYTES_MAX, Version};

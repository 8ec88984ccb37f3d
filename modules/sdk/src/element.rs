//! Typed views: from a host's tensor to a vector of numbers or byte strings, and back.

use crate::bindings::tidegate::model::tensors;
use crate::{Error, Result, Tensor};

/// Type of a tensor's elements, by the names of the Open Inference Protocol.
pub use crate::bindings::tidegate::model::tensors::Dtype;

/// A number that tensors can hold.
pub trait Element: bytemuck::Pod {
    /// The dtype that has exactly this layout.
    const DTYPE: Dtype;
}

macro_rules! elements {
    ($($number:ty => $dtype:ident;)*) => {
        $(impl Element for $number {
            const DTYPE: Dtype = Dtype::$dtype;
        })*
    };
}

elements! {
    u8 => Uint8;
    u16 => Uint16;
    u32 => Uint32;
    u64 => Uint64;
    i8 => Int8;
    i16 => Int16;
    i32 => Int32;
    i64 => Int64;
    f32 => Fp32;
    f64 => Fp64;
}

// A tensor's bytes are little-endian, and so is WebAssembly: a view is a copy, not a conversion.
const _: () = assert!(cfg!(target_endian = "little"));

/// The type of a tensor's elements.
#[must_use]
pub fn dtype(tensor: &Tensor) -> Dtype {
    tensors::dtype_of(tensor)
}

/// All elements of a tensor in row-major order. Fails if they are of another type.
pub fn read<E: Element>(tensor: &Tensor) -> Result<Vec<E>> {
    let dtype = dtype(tensor);
    if dtype != E::DTYPE {
        return Err(format!("the tensor holds {dtype:?}, wanted {:?}", E::DTYPE));
    }
    Ok(bytemuck::pod_collect_to_vec(&tensor.data()))
}

/// At most `len` bytes of a tensor's elements from byte `offset`, fewer where they end: for a guest
/// that wants part of a tensor, or an element type that Rust does not have.
#[must_use]
pub fn read_bytes(tensor: &Tensor, offset: u64, len: u32) -> Vec<u8> {
    tensors::read(tensor, offset, len)
}

/// A tensor of these elements in row-major order. Fails unless the shape takes exactly as many.
pub fn make<E: Element>(shape: &[usize], elements: &[E]) -> Result<Tensor> {
    tensors::make(
        &dimensions(shape)?,
        E::DTYPE,
        bytemuck::cast_slice(elements),
    )
}

/// The elements of a BYTES tensor. Fails if it is of another type.
pub fn strings(tensor: &Tensor) -> Result<Vec<Vec<u8>>> {
    tensors::strings(tensor)
}

/// A BYTES tensor of these elements. Fails unless the shape takes exactly as many.
pub fn make_strings(shape: &[usize], elements: &[Vec<u8>]) -> Result<Tensor> {
    tensors::from_strings(&dimensions(shape)?, elements)
}

fn dimensions(shape: &[usize]) -> Result<Vec<u32>> {
    let too_large = |_| Error::from("an extent is above what a tensor can have");
    shape
        .iter()
        .map(|extent| u32::try_from(*extent).map_err(too_large))
        .collect()
}

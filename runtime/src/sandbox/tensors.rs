//! `tidegate:model/tensors`: every dtype, parts of the data, byte strings, and errors instead of traps.

use bytes::Bytes;
use tidegate_inference::{Dtype, Shape, Tensor, byte_elements};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource};

use super::{HostTensor, Sandbox};

/// `tidegate:model/tensors.dtype`, in the order of its declaration there.
#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
enum WitDtype {
    #[component(name = "bool")]
    Bool,
    #[component(name = "uint8")]
    Uint8,
    #[component(name = "uint16")]
    Uint16,
    #[component(name = "uint32")]
    Uint32,
    #[component(name = "uint64")]
    Uint64,
    #[component(name = "int8")]
    Int8,
    #[component(name = "int16")]
    Int16,
    #[component(name = "int32")]
    Int32,
    #[component(name = "int64")]
    Int64,
    #[component(name = "fp16")]
    Fp16,
    #[component(name = "bf16")]
    Bf16,
    #[component(name = "fp32")]
    Fp32,
    #[component(name = "fp64")]
    Fp64,
    #[component(name = "bytes")]
    Bytes,
}

impl From<Dtype> for WitDtype {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Bool => Self::Bool,
            Dtype::Uint8 => Self::Uint8,
            Dtype::Uint16 => Self::Uint16,
            Dtype::Uint32 => Self::Uint32,
            Dtype::Uint64 => Self::Uint64,
            Dtype::Int8 => Self::Int8,
            Dtype::Int16 => Self::Int16,
            Dtype::Int32 => Self::Int32,
            Dtype::Int64 => Self::Int64,
            Dtype::Fp16 => Self::Fp16,
            Dtype::Bf16 => Self::Bf16,
            Dtype::Fp32 => Self::Fp32,
            Dtype::Fp64 => Self::Fp64,
            Dtype::Bytes => Self::Bytes,
        }
    }
}

impl From<WitDtype> for Dtype {
    fn from(dtype: WitDtype) -> Self {
        match dtype {
            WitDtype::Bool => Self::Bool,
            WitDtype::Uint8 => Self::Uint8,
            WitDtype::Uint16 => Self::Uint16,
            WitDtype::Uint32 => Self::Uint32,
            WitDtype::Uint64 => Self::Uint64,
            WitDtype::Int8 => Self::Int8,
            WitDtype::Int16 => Self::Int16,
            WitDtype::Int32 => Self::Int32,
            WitDtype::Int64 => Self::Int64,
            WitDtype::Fp16 => Self::Fp16,
            WitDtype::Bf16 => Self::Bf16,
            WitDtype::Fp32 => Self::Fp32,
            WitDtype::Fp64 => Self::Fp64,
            WitDtype::Bytes => Self::Bytes,
        }
    }
}

/// Most elements that a guest may take out of a BYTES tensor in one call.
const STRINGS_MAX: usize = 1 << 20;

type Store<'a> = StoreContextMut<'a, Sandbox>;
type Made = Result<Resource<HostTensor>, String>;

pub(super) fn add_to_linker(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    let mut tensors = linker.instance("tidegate:model/tensors@1.0.0")?;
    tensors.func_wrap(
        "dtype-of",
        |store: Store<'_>, (tensor,): (Resource<HostTensor>,)| {
            Ok((WitDtype::from(store.data().tensor(&tensor)?.dtype()),))
        },
    )?;
    tensors.func_wrap(
        "byte-len",
        |store: Store<'_>, (tensor,): (Resource<HostTensor>,)| {
            Ok((store.data().tensor(&tensor)?.data().len() as u64,))
        },
    )?;
    tensors.func_wrap(
        "make",
        |mut store: Store<'_>, (dimensions, dtype, data): (Vec<u32>, WitDtype, Bytes)| {
            Ok((make(store.data_mut(), &dimensions, dtype.into(), data),))
        },
    )?;
    tensors.func_wrap(
        "read",
        |store: Store<'_>, (tensor, offset, len): (Resource<HostTensor>, u64, u32)| {
            let data = store.data().tensor(&tensor)?.data();
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(data.len());
            let end = start.saturating_add(usize::try_from(len)?).min(data.len());
            Ok((data.slice(start..end),))
        },
    )?;
    tensors.func_wrap(
        "strings",
        |store: Store<'_>, (tensor,): (Resource<HostTensor>,)| {
            let tensor = store.data().tensor(&tensor)?;
            if tensor.dtype() != Dtype::Bytes {
                return Ok((Err(format!("a {} tensor has no strings", tensor.dtype())),));
            }
            if tensor.len() > STRINGS_MAX {
                let message = format!("more than {STRINGS_MAX} strings; read parts of the data");
                return Ok((Err(message),));
            }
            let data = tensor.data();
            let elements: Vec<Bytes> = byte_elements(data)
                .flatten()
                .map(|element| data.slice_ref(element))
                .collect();
            Ok((Ok(elements),))
        },
    )?;
    tensors.func_wrap(
        "from-strings",
        |mut store: Store<'_>, (dimensions, elements): (Vec<u32>, Vec<Bytes>)| {
            let data = Tensor::from_byte_elements(&elements).data().clone();
            Ok((make(store.data_mut(), &dimensions, Dtype::Bytes, data),))
        },
    )?;
    Ok(())
}

fn make(sandbox: &mut Sandbox, dimensions: &[u32], dtype: Dtype, data: Bytes) -> Made {
    let tensor = tensor(dimensions, dtype, data)?;
    sandbox
        .push_tensor(tensor)
        .map_err(|refusal| format!("refused by {refusal}"))
}

/// A tensor of what a guest gave, or what is wrong with it.
pub(super) fn tensor(dimensions: &[u32], dtype: Dtype, data: Bytes) -> Result<Tensor, String> {
    let shape: Shape = dimensions
        .iter()
        .map(|extent| usize::try_from(*extent).expect("a host's address has 32 bits or more"))
        .collect();
    Tensor::new(dtype, shape, data).map_err(|error| error.to_string())
}

//! The enumerations of `wasi:nn`, and the errors that guests get handles of.

use tidegate_inference::Dtype;
use wasmtime::component::{ComponentType, Lift, Lower};

use crate::sandbox::Refusal;

/// `wasi:nn/tensor.tensor-type`, in the order of its declaration there.
#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
pub(super) enum TensorType {
    #[component(name = "FP16")]
    Fp16,
    #[component(name = "FP32")]
    Fp32,
    #[component(name = "FP64")]
    Fp64,
    #[component(name = "BF16")]
    Bf16,
    #[component(name = "U8")]
    U8,
    #[component(name = "I32")]
    I32,
    #[component(name = "I64")]
    I64,
}

impl TensorType {
    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::Fp16 => Dtype::Fp16,
            Self::Fp32 => Dtype::Fp32,
            Self::Fp64 => Dtype::Fp64,
            Self::Bf16 => Dtype::Bf16,
            Self::U8 => Dtype::Uint8,
            Self::I32 => Dtype::Int32,
            Self::I64 => Dtype::Int64,
        }
    }

    pub(super) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::Fp16 => Some(Self::Fp16),
            Dtype::Fp32 => Some(Self::Fp32),
            Dtype::Fp64 => Some(Self::Fp64),
            Dtype::Bf16 => Some(Self::Bf16),
            Dtype::Uint8 => Some(Self::U8),
            Dtype::Int32 => Some(Self::I32),
            Dtype::Int64 => Some(Self::I64),
            Dtype::Bool
            | Dtype::Uint16
            | Dtype::Uint32
            | Dtype::Uint64
            | Dtype::Int8
            | Dtype::Int16
            | Dtype::Bytes => None,
        }
    }
}

/// `wasi:nn/graph.graph-encoding`.
#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
#[expect(
    dead_code,
    reason = "guests make them, and the canonical ABI lifts them"
)]
pub(super) enum GraphEncoding {
    #[component(name = "openvino")]
    Openvino,
    #[component(name = "onnx")]
    Onnx,
    #[component(name = "tensorflow")]
    Tensorflow,
    #[component(name = "pytorch")]
    Pytorch,
    #[component(name = "tensorflowlite")]
    Tensorflowlite,
    #[component(name = "ggml")]
    Ggml,
    #[component(name = "autodetect")]
    Autodetect,
}

impl GraphEncoding {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Openvino => "openvino",
            Self::Onnx => "onnx",
            Self::Tensorflow => "tensorflow",
            Self::Pytorch => "pytorch",
            Self::Tensorflowlite => "tensorflowlite",
            Self::Ggml => "ggml",
            Self::Autodetect => "autodetect",
        }
    }
}

/// `wasi:nn/graph.execution-target`.
#[derive(Clone, Copy, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
#[expect(
    dead_code,
    reason = "guests make them, and the canonical ABI lifts them"
)]
pub(super) enum ExecutionTarget {
    #[component(name = "cpu")]
    Cpu,
    #[component(name = "gpu")]
    Gpu,
    #[component(name = "tpu")]
    Tpu,
}

impl ExecutionTarget {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Gpu => "gpu",
            Self::Tpu => "tpu",
        }
    }
}

/// `wasi:nn/errors.error-code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
#[expect(
    dead_code,
    reason = "the standard names more than this host gives or reads"
)]
pub(crate) enum ErrorCode {
    #[component(name = "invalid-argument")]
    InvalidArgument,
    #[component(name = "invalid-encoding")]
    InvalidEncoding,
    #[component(name = "timeout")]
    Timeout,
    #[component(name = "runtime-error")]
    RuntimeError,
    #[component(name = "unsupported-operation")]
    UnsupportedOperation,
    #[component(name = "too-large")]
    TooLarge,
    #[component(name = "not-found")]
    NotFound,
    #[component(name = "security")]
    Security,
    #[component(name = "unknown")]
    Unknown,
}

/// An error that a guest has a handle of.
#[derive(Debug)]
pub(crate) struct HostError {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

impl HostError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }
}

impl From<Refusal> for HostError {
    fn from(refusal: Refusal) -> Self {
        Self::new(ErrorCode::TooLarge, format!("refused by {refusal}"))
    }
}

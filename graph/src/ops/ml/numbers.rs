//! The two widths of floating-point numbers that scores are computed in.

use tract_onnx::prelude::Datum;
use tract_onnx::prelude::tract_num_traits::Float;

/// `f32` or `f64`.
pub(super) trait Real: Float + Datum {
    /// The nearest `f32`.
    fn single(self) -> f32;
    /// The nearest number of this width.
    fn from_single(value: f32) -> Self;
    /// The nearest number of this width.
    fn from_double(value: f64) -> Self;
}

impl Real for f32 {
    fn single(self) -> f32 {
        self
    }

    fn from_single(value: f32) -> Self {
        value
    }

    #[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
    fn from_double(value: f64) -> Self {
        value as Self
    }
}

impl Real for f64 {
    #[expect(clippy::cast_possible_truncation, reason = "rounding is meant")]
    fn single(self) -> f32 {
        self as f32
    }

    fn from_single(value: f32) -> Self {
        Self::from(value)
    }

    fn from_double(value: f64) -> Self {
        value
    }
}

//! Arithmetic on floating-point tensors, at the precision that each type needs.
//!
//! 16-bit floats are computed in 32 bits and rounded once at the end, as hardware does.

use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_num_traits::{AsPrimitive, Float, FromPrimitive};

use super::kernel::{slice, tensor};

/// A type that kernels compute in.
pub(super) trait Real:
    Datum + Float + FromPrimitive + AsPrimitive<f64> + std::iter::Sum + std::ops::AddAssign
{
    /// The nearest value of this type.
    fn of(value: f64) -> Self;
}

impl Real for f32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding to the nearest value is what is wanted"
    )]
    fn of(value: f64) -> Self {
        value as Self
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }
}

/// Calls a function with the type to compute a floating-point tensor in.
macro_rules! with_real {
    ($datum_type:expr, $function:ident ( $($argument:expr),* $(,)? )) => {
        match $datum_type {
            DatumType::F64 => $function::<f64>($($argument),*),
            DatumType::F32 | DatumType::F16 => $function::<f32>($($argument),*),
            other => bail!("{other:?} is not a floating-point type"),
        }
    };
}
pub(super) use with_real;

/// Refuses a type that [`with_real`] does not take.
pub(super) fn check_real(datum_type: DatumType) -> TractResult<()> {
    ensure!(
        matches!(datum_type, DatumType::F16 | DatumType::F32 | DatumType::F64),
        "{datum_type:?} is not a floating-point type"
    );
    Ok(())
}

/// The elements of a tensor in the type to compute in.
pub(super) struct Reals<'a, R: Real>(Cow<'a, Tensor>, PhantomData<R>);

impl<'a, R: Real> Reals<'a, R> {
    pub(super) fn new(tensor: &'a Tensor) -> TractResult<Self> {
        Ok(Self(tensor.cast_to::<R>()?, PhantomData))
    }

    pub(super) fn as_slice(&self) -> TractResult<&[R]> {
        slice::<R>(&self.0)
    }
}

/// A tensor of the wanted type from elements of the type that was computed in.
pub(super) fn rounded<R: Real>(
    datum_type: DatumType,
    shape: &[usize],
    elements: Vec<R>,
) -> TractResult<Tensor> {
    let wide = tensor(shape, elements)?;
    if wide.datum_type() == datum_type {
        return Ok(wide);
    }
    Ok(wide.cast_to_dt(datum_type)?.into_owned())
}

/// The inner product of two rows of the same length, in eight partial sums that can run side by side.
pub(super) fn dot<R: Real>(left: &[R], right: &[R]) -> R {
    let (left_eights, left_rest) = left.as_chunks::<8>();
    let (right_eights, right_rest) = right.as_chunks::<8>();
    let mut sums = [R::zero(); 8];
    for (left, right) in left_eights.iter().zip(right_eights) {
        for lane in 0..8 {
            sums[lane] += left[lane] * right[lane];
        }
    }
    let rest: R = left_rest.iter().zip(right_rest).map(|(a, b)| *a * *b).sum();
    sums.iter().copied().sum::<R>() + rest
}

/// Adds a multiple of one row to another of the same length.
pub(super) fn add_scaled<R: Real>(sum: &mut [R], factor: R, row: &[R]) {
    for (sum, value) in sum.iter_mut().zip(row) {
        *sum += factor * *value;
    }
}

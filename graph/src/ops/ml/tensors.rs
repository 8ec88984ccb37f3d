//! Tensors of the engine as slices, and rows of features.

use std::borrow::Cow;

use tract_onnx::prelude::tract_ndarray::ArrayD;
use tract_onnx::prelude::{Datum, DatumType, IntoTensor, TDim, Tensor, TractResult};
use tract_onnx::tract_hir::internal::{ensure, tvec};

use super::Fact;

/// The elements, which must be of type `T`.
pub(super) fn elements<T: Datum>(tensor: &Tensor) -> TractResult<&[T]> {
    tensor.try_as_plain_ram()?.as_slice::<T>()
}

/// The elements of a tensor of numbers as 32-bit floats.
pub(super) fn floats(tensor: &Tensor) -> TractResult<Cow<'_, [f32]>> {
    cast(tensor)
}

/// The elements of a tensor of numbers as `T`.
pub(super) fn cast<T: Datum + Copy>(tensor: &Tensor) -> TractResult<Cow<'_, [T]>> {
    if tensor.datum_type() == T::datum_type() {
        return Ok(Cow::Borrowed(elements(tensor)?));
    }
    let cast = tensor.cast_to::<T>()?;
    Ok(Cow::Owned(elements(&cast)?.to_vec()))
}

/// A tensor of these elements.
pub(super) fn tensor<T: Datum>(shape: &[usize], elements: Vec<T>) -> TractResult<Tensor> {
    Ok(ArrayD::from_shape_vec(shape, elements)?.into_tensor())
}

/// Refuses what is not a number; shapes that a graph computes are numbers.
pub(super) fn check_number(datum_type: DatumType) -> TractResult<()> {
    let is_number = matches!(
        datum_type,
        DatumType::F32 | DatumType::F64 | DatumType::I32 | DatumType::I64 | DatumType::TDim
    );
    ensure!(is_number, "the input has elements of type {datum_type:?}");
    Ok(())
}

/// The rows of an input of numbers; a single axis is one row.
pub(super) fn row_count((datum_type, shape): &Fact) -> TractResult<TDim> {
    check_number(*datum_type)?;
    match shape.as_slice() {
        [_] => Ok(1.into()),
        [rows, _] => Ok(rows.clone()),
        _ => {
            let rank = shape.len();
            Err(tract_onnx::tract_hir::internal::format_err!(
                "the input has {rank} axes, not 1 or 2"
            ))
        }
    }
}

/// Rows and columns of a tensor whose fact [`row_count`] accepts.
pub(super) fn extents(tensor: &Tensor) -> TractResult<(usize, usize)> {
    match tensor.shape() {
        [columns] => Ok((1, *columns)),
        [rows, columns] => Ok((*rows, *columns)),
        shape => Err(tract_onnx::tract_hir::internal::format_err!(
            "the input has the shape {shape:?}"
        )),
    }
}

/// The fact of a table.
pub(super) fn table(datum_type: DatumType, rows: TDim, columns: usize) -> Fact {
    (datum_type, tvec![rows, columns.into()])
}

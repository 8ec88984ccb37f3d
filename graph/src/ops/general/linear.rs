//! Determinants of matrices: `Det`. Gated units: `SwiGLU`.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Facts, Kernel, Unknown, Values, volume};
use super::own::operator;
use super::real::{Real, Reals, check_real, rounded, with_real};

#[derive(Debug)]
struct Det;

pub(super) fn det(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    operator(context, node, "Det", Det)
}

impl Kernel for Det {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = inputs.need(0)?;
        check_real(input.datum_type)?;
        let [front @ .., rows, columns] = input.shape.dims() else {
            bail!("the input has fewer than two axes");
        };
        ensure!(
            rows == columns,
            "matrices of {rows} by {columns} are not square"
        );
        Ok(tvec![input.datum_type.fact(front)])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let input = inputs.need(0)?;
        let [front @ .., size, _] = input.shape() else {
            bail!("the input has fewer than two axes");
        };
        let data = Reals::<f64>::new(input)?;
        let count = volume(front)?;
        let mut matrices = data.as_slice()?.to_vec();
        let elements = size * size;
        let determinants = (0..count)
            .map(|index| {
                determinant(
                    &mut matrices[index * elements..(index + 1) * elements],
                    *size,
                )
            })
            .collect();
        Ok(tvec![rounded(input.datum_type(), front, determinants)?])
    }
}

/// By elimination with the largest pivot of each column.
fn determinant(matrix: &mut [f64], size: usize) -> f64 {
    let mut product = 1.0;
    for column in 0..size {
        let magnitude = |row: &usize| matrix[row * size + column].abs();
        let pivot = (column..size).max_by(|a, b| magnitude(a).total_cmp(&magnitude(b)));
        let pivot = pivot.unwrap_or(column);
        if pivot != column {
            product = -product;
            for at in 0..size {
                matrix.swap(pivot * size + at, column * size + at);
            }
        }
        let diagonal = matrix[column * size + column];
        product *= diagonal;
        if diagonal == 0.0 {
            return 0.0;
        }
        for row in column + 1..size {
            let factor = matrix[row * size + column] / diagonal;
            for at in column..size {
                matrix[row * size + at] -= factor * matrix[column * size + at];
            }
        }
    }
    product
}

#[derive(Debug)]
struct SwiGlu {
    alpha: f32,
}

pub(super) fn swi_glu(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let alpha = node.get_attr_opt("alpha")?.unwrap_or(1.0);
    operator(context, node, "SwiGLU", SwiGlu { alpha })
}

impl Kernel for SwiGlu {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let (gate, input) = (inputs.need(0)?, inputs.need(1)?);
        check_real(gate.datum_type)?;
        ensure!(
            gate.datum_type == input.datum_type && gate.shape == input.shape,
            "the inputs differ in type or shape"
        );
        Ok(tvec![gate.datum_type.fact(gate.shape.clone())])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        with_real!(inputs.need(0)?.datum_type(), gated(inputs, self.alpha))
    }
}

fn gated<R: Real>(inputs: &Values<'_>, alpha: f32) -> TractResult<TVec<Tensor>> {
    let (gate, input) = (inputs.need(0)?, inputs.need(1)?);
    let (gates, values) = (Reals::<R>::new(gate)?, Reals::<R>::new(input)?);
    let alpha = R::of(f64::from(alpha));
    let pairs = gates.as_slice()?.iter().zip(values.as_slice()?);
    let output = pairs.map(|(gate, value)| *gate / (R::one() + (-alpha * *gate).exp()) * *value);
    Ok(tvec![rounded(
        gate.datum_type(),
        gate.shape(),
        output.collect()
    )?])
}

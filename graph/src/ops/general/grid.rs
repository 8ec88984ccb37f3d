//! Grids of sampling points, and images sampled or resized by the engine: `AffineGrid`, `GridSample`,
//! `Upsample`.

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, NodeProto};
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::tract_num_traits::ToPrimitive;

use super::copies::for_each_index;
use super::kernel::{Facts, Kernel, Unknown, Values, check_bytes, volume};
use super::own::operator;
use super::real::{Reals, check_real, rounded};

#[derive(Debug)]
struct AffineGrid {
    align_corners: bool,
}

pub(super) fn affine_grid(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let align_corners = node.get_attr_opt("align_corners")?.unwrap_or(false);
    operator(context, node, "AffineGrid", AffineGrid { align_corners })
}

/// The spatial extents of a size `[N, C, H, W]` or `[N, C, D, H, W]`.
fn spatial(numbers: &[i64], axes: usize) -> TractResult<TVec<usize>> {
    ensure!(
        numbers.len() == axes + 2,
        "a size of {} numbers",
        numbers.len()
    );
    numbers[2..]
        .iter()
        .map(|extent| usize::try_from(*extent).with_context(|| format!("an extent is {extent}")))
        .collect()
}

impl Kernel for AffineGrid {
    fn facts(&self, inputs: &Facts<'_>, unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let theta = inputs.need(0)?;
        check_real(theta.datum_type)?;
        let axes = match theta.shape.dims() {
            [_, rows, columns] if *rows == 2.to_dim() && *columns == 3.to_dim() => 2,
            [_, rows, columns] if *rows == 3.to_dim() && *columns == 4.to_dim() => 3,
            other => bail!("theta has the shape {other:?}"),
        };
        let mut shape = tvec![theta.shape[0].clone()];
        match inputs.integers(1)? {
            Some(numbers) => shape.extend(spatial(&numbers, axes)?.iter().map(ToDim::to_dim)),
            None => shape.extend((0..axes).map(|axis| unknown.extent(axis))),
        }
        shape.push(axes.to_dim());
        Ok(tvec![theta.datum_type.fact(&*shape)])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let theta = inputs.need(0)?;
        let &[batch, axes, columns] = theta.shape() else {
            bail!("theta must have three axes");
        };
        let extents = spatial(&inputs.integers(1)?, axes)?;
        let mut shape: TVec<usize> = tvec![batch];
        shape.extend(extents.iter().copied());
        shape.push(axes);
        check_bytes(&shape, size_of::<f64>())?;
        let rows = Reals::<f64>::new(theta)?;
        let rows = rows.as_slice()?;
        let coordinate = |at: usize, extent: usize| -> f64 {
            let (at, extent) = (at.to_f64().unwrap_or(0.0), extent.to_f64().unwrap_or(1.0));
            if !self.align_corners {
                (2.0 * at + 1.0) / extent - 1.0
            } else if extent > 1.0 {
                2.0 * at / (extent - 1.0) - 1.0
            } else {
                -1.0
            }
        };
        let mut output = Vec::with_capacity(volume(&shape)?);
        for map in rows.chunks_exact(axes * columns) {
            for_each_index(&extents, |index| {
                output.extend(map.chunks_exact(columns).map(|row| {
                    // The last axis of the grid is the first coordinate.
                    let places = index.iter().zip(&extents).rev();
                    let terms = row.iter().zip(places);
                    let sum: f64 = terms
                        .map(|(factor, (at, extent))| factor * coordinate(*at, *extent))
                        .sum();
                    sum + row[columns - 1]
                }));
            });
        }
        Ok(tvec![rounded(theta.datum_type(), &shape, output)?])
    }
}

/// The engine's own reading of an operator.
fn engine(
    context: &ParsingContext<'_>,
    node: &NodeProto,
    operator: &str,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let mut operators = OnnxOpRegister::default();
    tract_onnx::ops::register_all_ops(&mut operators);
    let build = operators.0.get(operator);
    build.with_context(|| format!("the engine has no {operator}"))?(context, node)
}

/// As the engine does it, except where ONNX's reference, which it follows, and ONNX Runtime, which models
/// are made with, disagree: one moves points of the outside to the border, the other only pixels.
pub(super) fn grid_sample(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let mode: Option<&str> = node.get_attr_opt("mode")?;
    let padding: Option<&str> = node.get_attr_opt("padding_mode")?;
    ensure!(
        !matches!((mode, padding), (Some("cubic" | "bicubic"), Some("border"))),
        "cubic sampling with a padding of the border is not supported"
    );
    engine(context, node, "GridSample")
}

/// `Resize` under its old name, where each output takes the input before it.
pub(super) fn upsample(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    ensure!(
        node.input.len() == 2,
        "Upsample is supported with its scales as an input"
    );
    let mut context = context.clone();
    context.onnx_operator_set_version = 10;
    let mut node = node.clone();
    node.attribute.push(AttributeProto {
        name: "nearest_mode".to_owned(),
        r#type: AttributeType::String.into(),
        s: "floor".into(),
        ..AttributeProto::default()
    });
    engine(&context, &node, "Resize")
}

//! `QuantizeLinear` and `DequantizeLinear`, with scales that may come from anywhere.
//!
//! The engine's own want constant scales, know two types, and multiply by the inverse of a scale, which
//! now and then rounds to another integer than a division does. These take one scale, one for each
//! place along an axis, or one for each block of places, and divide.

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("QuantizeLinear", |context, node| {
        parse(context, node, Way::Quantize)
    });
    operators.insert("DequantizeLinear", |context, node| {
        parse(context, node, Way::Dequantize)
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Quantize,
    Dequantize,
}

/// The operator as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Linear {
    way: Way,
    axis: i64,
    /// Places along the axis that share a scale, or 0 where each has its own.
    block: usize,
    has_zero_point: bool,
    /// The output's type, if the file says it.
    output: Option<DatumType>,
}

fn parse(
    _context: &ParsingContext<'_>,
    node: &NodeProto,
    way: Way,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let block = node.get_attr_opt::<i64>("block_size")?.unwrap_or(0);
    let output = match node.get_attr_opt::<i64>("output_dtype")?.unwrap_or(0) {
        0 => None,
        number => {
            let data_type = DataType::try_from(i32::try_from(number)?)?;
            Some(DatumType::try_from(data_type)?)
        }
    };
    let op = Linear {
        way,
        axis: node.get_attr_opt("axis")?.unwrap_or(1),
        block: usize::try_from(block)?,
        has_zero_point: node.input.len() > 2,
        output,
    };
    Ok((expand(op), vec![]))
}

impl Expansion for Linear {
    fn name(&self) -> StaticName {
        match self.way {
            Way::Quantize => "QuantizeLinear".into(),
            Way::Dequantize => "DequantizeLinear".into(),
        }
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2 + usize::from(self.has_zero_point))?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)?;
        match (self.output, self.way, self.has_zero_point) {
            (Some(output), _, _) => solver.equals(&outputs[0].datum_type, output),
            (None, Way::Quantize, true) => {
                solver.equals(&outputs[0].datum_type, &inputs[2].datum_type)
            }
            (None, Way::Quantize, false) => solver.equals(&outputs[0].datum_type, u8::datum_type()),
            (None, Way::Dequantize, _) => {
                solver.equals(&outputs[0].datum_type, &inputs[1].datum_type)
            }
        }
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let fact = |at: usize| model.outlet_fact(inputs[at]).cloned();
        let (values, scale) = (fact(0)?, fact(1)?);
        let output = match (self.output, self.way, self.has_zero_point) {
            (Some(output), _, _) => output,
            (None, Way::Quantize, true) => fact(2)?.datum_type,
            (None, Way::Quantize, false) => u8::datum_type(),
            (None, Way::Dequantize, _) => scale.datum_type,
        };
        let rank = i64::try_from(values.rank())?;
        let axis = if self.axis < 0 {
            self.axis + rank
        } else {
            self.axis
        };
        let places = if scale.rank() == 0 || scale.shape.volume().is_one() {
            Places::One
        } else {
            if !(0..rank).contains(&axis) {
                bail!("axis {} of {rank}", self.axis);
            }
            let axis = usize::try_from(axis)?;
            match (scale.rank(), self.block) {
                (1, 0) => Places::Each { axis },
                (_, 0) => bail!("a scale of rank {} without blocks", scale.rank()),
                (_, block) => Places::Blocks { axis, block },
            }
        };
        let op = TypedLinear {
            way: self.way,
            places,
            output,
        };
        model.wire_node(prefix, op, inputs)
    }
}

/// Which scale an element has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Places {
    One,
    Each { axis: usize },
    Blocks { axis: usize, block: usize },
}

impl Places {
    /// For each element of a tensor, by its place in order, that of its scale. Fails if the scales do not
    /// fit.
    fn position(self, shape: &[usize], scales: &[usize]) -> TractResult<impl Fn(usize) -> usize> {
        let volume = |extents: &[usize]| extents.iter().product::<usize>();
        let (extent, inner, block, blocks) = match self {
            Self::One => (1, 1, 1, 0),
            Self::Each { axis } => {
                let extent = shape[axis];
                if volume(scales) != extent {
                    bail!("{} scales for {extent} places", volume(scales));
                }
                (extent, volume(&shape[axis + 1..]), 0, extent)
            }
            Self::Blocks { axis, block } => {
                let extent = shape[axis];
                let blocks = extent.div_ceil(block);
                let mut wanted = shape.to_vec();
                wanted[axis] = blocks;
                if scales != wanted {
                    bail!("scales of shape {scales:?}, not {wanted:?}");
                }
                (extent, volume(&shape[axis + 1..]), block, blocks)
            }
        };
        Ok(move |at: usize| match self {
            Self::One => 0,
            Self::Each { .. } => at / inner % extent,
            Self::Blocks { .. } => {
                let (outer, place, rest) = (at / inner / extent, at / inner % extent, at % inner);
                (outer * blocks + place / block) * inner + rest
            }
        })
    }
}

/// The operator on known types.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TypedLinear {
    way: Way,
    places: Places,
    output: DatumType,
}

impl Op for TypedLinear {
    fn name(&self) -> StaticName {
        match self.way {
            Way::Quantize => "QuantizeLinear".into(),
            Way::Dequantize => "DequantizeLinear".into(),
        }
    }

    op_as_typed_op!();
}

impl EvalOp for TypedLinear {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let position = self.places.position(inputs[0].shape(), inputs[1].shape())?;
        let scales = inputs[1].cast_to::<f32>()?;
        let scales = scales.try_as_plain_ram()?.as_slice::<f32>()?;
        let zero_points = match inputs.get(2) {
            Some(points) => {
                let points = points.cast_to::<i32>()?;
                points.try_as_plain_ram()?.as_slice::<i32>()?.to_vec()
            }
            None => vec![0; scales.len()],
        };
        if zero_points.len() != scales.len() {
            bail!(
                "{} zero points for {} scales",
                zero_points.len(),
                scales.len()
            );
        }
        let shape = inputs[0].shape();
        let output = match self.way {
            Way::Quantize => {
                let values = inputs[0].cast_to::<f32>()?;
                let values = values.try_as_plain_ram()?.as_slice::<f32>()?;
                let quotients = values.iter().enumerate().map(|(at, value)| {
                    let at = position(at);
                    (value / scales[at]).round_ties_even() + zero_points[at] as f32
                });
                quantized(self.output, shape, quotients)?
            }
            Way::Dequantize => {
                let values = inputs[0].cast_to::<i32>()?;
                let values = values.try_as_plain_ram()?.as_slice::<i32>()?;
                let products = values.iter().enumerate().map(|(at, value)| {
                    let at = position(at);
                    value.wrapping_sub(zero_points[at]) as f32 * scales[at]
                });
                dequantized(self.output, shape, products)?
            }
        };
        Ok(tvec![output.into_tvalue()])
    }
}

/// Saturates to the type's range; NaN becomes zero.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a cast from float saturates, which is what the operator does"
)]
fn quantized(
    output: DatumType,
    shape: &[usize],
    values: impl Iterator<Item = f32>,
) -> TractResult<Tensor> {
    match output {
        DatumType::U8 => tensor(shape, values.map(|value| value as u8)),
        DatumType::I8 => tensor(shape, values.map(|value| value as i8)),
        DatumType::U16 => tensor(shape, values.map(|value| value as u16)),
        DatumType::I16 => tensor(shape, values.map(|value| value as i16)),
        DatumType::I32 => tensor(shape, values.map(|value| value as i32)),
        other => bail!("QuantizeLinear to {other:?} is not implemented"),
    }
}

fn dequantized(
    output: DatumType,
    shape: &[usize],
    values: impl Iterator<Item = f32>,
) -> TractResult<Tensor> {
    match output {
        DatumType::F32 => tensor(shape, values),
        DatumType::F16 => tensor(shape, values.map(f16::from_f32)),
        other => bail!("DequantizeLinear to {other:?} is not implemented"),
    }
}

fn tensor<T: Datum + Copy>(
    shape: &[usize],
    values: impl Iterator<Item = T>,
) -> TractResult<Tensor> {
    Tensor::from_shape(shape, &values.collect::<Vec<T>>())
}

impl TypedOp for TypedLinear {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec![self.output.fact(inputs[0].shape.clone())])
    }

    as_op!();
}

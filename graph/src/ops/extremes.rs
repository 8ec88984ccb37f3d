//! `ReduceMax` and `ReduceMin`, exact at the ends of a type.
//!
//! The engine's begin with the largest finite number, so that the largest of nothing, or of minus
//! infinities alone, is none of what ONNX says; and they do not take booleans. Masked attention is full
//! of minus infinities.

use tract_onnx::model::{OnnxOpRegister, ParsingContext};
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::tract_ndarray::{ArrayViewD, Axis};
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_hir::internal::*;

/// The opset from which the axes are an input.
const AXES_ARE_INPUT: i64 = 18;

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("ReduceMax", |context, node| parse(context, node, End::Max));
    operators.insert("ReduceMin", |context, node| parse(context, node, End::Min));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    Max,
    Min,
}

/// Where the axes are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Axes {
    All,
    None,
    Listed(Vec<i64>),
    /// The second input; no axes in it mean all, or none.
    Input {
        empty_is_all: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Extreme {
    end: End,
    axes: Axes,
    keeps_axes: bool,
}

fn parse(
    context: &ParsingContext<'_>,
    node: &NodeProto,
    end: End,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let empty_is_all = node
        .get_attr_opt::<i64>("noop_with_empty_axes")?
        .unwrap_or(0)
        == 0;
    let axes = if context.onnx_operator_set_version < AXES_ARE_INPUT {
        node.get_attr_opt_vec("axes")?
            .map_or(Axes::All, Axes::Listed)
    } else if node.input.len() > 1 {
        Axes::Input { empty_is_all }
    } else if empty_is_all {
        Axes::All
    } else {
        Axes::None
    };
    let keeps_axes = node.get_attr_opt::<i64>("keepdims")?.unwrap_or(1) != 0;
    let op = Extreme {
        end,
        axes,
        keeps_axes,
    };
    Ok((expand(op), vec![]))
}

impl Extreme {
    /// Which axes of a tensor of this rank go.
    fn resolve(&self, rank: usize, given: Option<&Tensor>) -> TractResult<Vec<usize>> {
        let listed = match (&self.axes, given) {
            (Axes::All, _) => return Ok((0..rank).collect()),
            (Axes::None, _) => return Ok(vec![]),
            (Axes::Listed(axes), _) => axes.clone(),
            (Axes::Input { empty_is_all }, Some(given)) => {
                let axes = given.cast_to::<i64>()?;
                match axes.try_as_plain_ram()?.as_slice::<i64>()? {
                    [] if *empty_is_all => return Ok((0..rank).collect()),
                    axes => axes.to_vec(),
                }
            }
            (Axes::Input { .. }, None) => bail!("the axes are not known"),
        };
        let mut axes = listed
            .into_iter()
            .map(|axis| {
                let from_start = if axis < 0 {
                    axis + i64::try_from(rank)?
                } else {
                    axis
                };
                let axis = usize::try_from(from_start).ok().filter(|axis| *axis < rank);
                axis.with_context(|| format!("there is no axis {from_start} of {rank}"))
            })
            .collect::<TractResult<Vec<usize>>>()?;
        axes.sort_unstable();
        axes.dedup();
        Ok(axes)
    }

    fn shape<D: DimLike>(&self, shape: &[D], axes: &[usize]) -> TVec<D> {
        let extents = shape.iter().enumerate();
        extents
            .filter(|(axis, _)| self.keeps_axes || !axes.contains(axis))
            .map(|(axis, extent)| {
                if axes.contains(&axis) {
                    1.into()
                } else {
                    extent.clone()
                }
            })
            .collect()
    }
}

impl Expansion for Extreme {
    fn name(&self) -> StaticName {
        match self.end {
            End::Max => "ReduceMax".into(),
            End::Min => "ReduceMin".into(),
        }
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        let takes_axes = matches!(self.axes, Axes::Input { .. });
        check_input_arity(inputs, 1 + usize::from(takes_axes))?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        if takes_axes {
            solver.given_2(
                &inputs[0].shape,
                &inputs[1].value,
                move |solver, shape, axes| {
                    let axes = self.resolve(shape.len(), Some(&axes))?;
                    solver.equals(&outputs[0].shape, self.shape(&shape, &axes))
                },
            )
        } else {
            solver.given(&inputs[0].shape, move |solver, shape| {
                let axes = self.resolve(shape.len(), None)?;
                solver.equals(&outputs[0].shape, self.shape(&shape, &axes))
            })
        }
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let fact = model.outlet_fact(inputs[0])?.clone();
        let given = match inputs.get(1) {
            Some(axes) => model.outlet_fact(*axes)?.konst.clone(),
            None => None,
        };
        let op = TypedExtreme {
            end: self.end,
            axes: self.resolve(fact.rank(), given.as_deref())?,
            keeps_axes: self.keeps_axes,
        };
        // Shapes are expressions inside the engine, which have no order.
        if fact.datum_type != DatumType::TDim {
            return model.wire_node(prefix, op, &inputs[..1]);
        }
        let name = |part: &str| format!("{prefix}.{part}");
        let numbers = model.wire_node(name("numbers"), cast(i64::datum_type()), &inputs[..1])?;
        let extreme = model.wire_node(name("extreme"), op, &numbers)?;
        model.wire_node(prefix, cast(DatumType::TDim), &extreme)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct TypedExtreme {
    end: End,
    axes: Vec<usize>,
    keeps_axes: bool,
}

impl Op for TypedExtreme {
    fn name(&self) -> StaticName {
        match self.end {
            End::Max => "ReduceMax".into(),
            End::Min => "ReduceMin".into(),
        }
    }

    op_as_typed_op!();
}

impl TypedExtreme {
    fn reduce<T: Datum + Copy + PartialOrd>(
        &self,
        values: ArrayViewD<'_, T>,
        [least, greatest]: [T; 2],
    ) -> Tensor {
        let (start, wanted) = match self.end {
            End::Max => (least, std::cmp::Ordering::Greater),
            End::Min => (greatest, std::cmp::Ordering::Less),
        };
        // What compares with nothing, not even with itself, is what comes out.
        let pick = |best: &T, value: &T| match value.partial_cmp(best) {
            Some(order) if order != wanted => *best,
            Some(_) => *value,
            None if best.partial_cmp(best).is_none() => *best,
            None => *value,
        };
        let mut left = values.to_owned();
        // From the innermost, whose elements lie together.
        for axis in self.axes.iter().rev() {
            left = left.fold_axis(Axis(*axis), start, pick);
            if self.keeps_axes {
                left = left.insert_axis(Axis(*axis));
            }
        }
        left.into_tensor()
    }
}

impl EvalOp for TypedExtreme {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        macro_rules! integers {
            ($type:ty) => {{
                let ends = [<$type>::MIN, <$type>::MAX];
                self.reduce(inputs[0].to_plain_array_view::<$type>()?, ends)
            }};
        }
        macro_rules! floats {
            ($type:ty) => {{
                let ends = [<$type>::NEG_INFINITY, <$type>::INFINITY];
                self.reduce(inputs[0].to_plain_array_view::<$type>()?, ends)
            }};
        }
        let output = match inputs[0].datum_type() {
            DatumType::Bool => self.reduce(inputs[0].to_plain_array_view()?, [false, true]),
            DatumType::U8 => integers!(u8),
            DatumType::U16 => integers!(u16),
            DatumType::U32 => integers!(u32),
            DatumType::U64 => integers!(u64),
            DatumType::I8 => integers!(i8),
            DatumType::I16 => integers!(i16),
            DatumType::I32 => integers!(i32),
            DatumType::I64 => integers!(i64),
            DatumType::F16 => floats!(f16),
            DatumType::F32 => floats!(f32),
            DatumType::F64 => floats!(f64),
            other => bail!("{} of {other:?}", self.name()),
        };
        Ok(tvec![output.into_tvalue()])
    }
}

impl TypedOp for TypedExtreme {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let extents = inputs[0].shape.iter().enumerate();
        let shape: TVec<TDim> = extents
            .filter(|(axis, _)| self.keeps_axes || !self.axes.contains(axis))
            .map(|(axis, extent)| {
                if self.axes.contains(&axis) {
                    1.to_dim()
                } else {
                    extent.clone()
                }
            })
            .collect();
        Ok(tvec![inputs[0].datum_type.fact(shape)])
    }

    as_op!();
}

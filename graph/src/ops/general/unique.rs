//! Distinct elements or slices: `Unique`.

use std::cmp::Ordering;

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Facts, Kernel, Unknown, Values, axis_in, slice, tensor};
use super::own::operator;

#[derive(Debug)]
struct Unique {
    axis: Option<i64>,
    sorted: bool,
}

pub(super) fn unique(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let kernel = Unique {
        axis: node.get_attr_opt("axis")?,
        sorted: node.get_attr_opt("sorted")?.unwrap_or(true),
    };
    operator(context, node, "Unique", kernel)
}

/// An order in which numbers that are no numbers are alike and come last.
trait Ordered: Datum {
    fn order(&self, other: &Self) -> Ordering;
}

macro_rules! ordered {
    ($($total:ty),*; $($partial:ty),*) => {
        $(impl Ordered for $total {
            fn order(&self, other: &Self) -> Ordering {
                self.cmp(other)
            }
        })*
        $(impl Ordered for $partial {
            fn order(&self, other: &Self) -> Ordering {
                self.partial_cmp(other)
                    .unwrap_or_else(|| self.is_nan().cmp(&other.is_nan()))
            }
        })*
    };
}

ordered!(bool, u8, u16, u32, u64, i8, i16, i32, i64, String; f16, f32, f64);

impl Kernel for Unique {
    fn facts(&self, inputs: &Facts<'_>, unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = inputs.need(0)?;
        let count = unknown.extent(0);
        let (shape, inverse) = match self.axis {
            None => (tvec![count.clone()], input.shape.volume()),
            Some(axis) => {
                let axis = axis_in(axis, input.rank())?;
                let mut shape = input.shape.to_tvec();
                let length = std::mem::replace(&mut shape[axis], count.clone());
                (shape, length)
            }
        };
        let places = i64::datum_type().fact([count]);
        Ok(tvec![
            input.datum_type.fact(&*shape),
            places.clone(),
            i64::datum_type().fact([inverse]),
            places,
        ])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let input = inputs.need(0)?;
        match input.datum_type() {
            DatumType::Bool => distinct::<bool>(self, input),
            DatumType::U8 => distinct::<u8>(self, input),
            DatumType::U16 => distinct::<u16>(self, input),
            DatumType::U32 => distinct::<u32>(self, input),
            DatumType::U64 => distinct::<u64>(self, input),
            DatumType::I8 => distinct::<i8>(self, input),
            DatumType::I16 => distinct::<i16>(self, input),
            DatumType::I32 => distinct::<i32>(self, input),
            DatumType::I64 => distinct::<i64>(self, input),
            DatumType::F16 => distinct::<f16>(self, input),
            DatumType::F32 => distinct::<f32>(self, input),
            DatumType::F64 => distinct::<f64>(self, input),
            DatumType::String => distinct::<String>(self, input),
            other => bail!("{other:?} has no order"),
        }
    }
}

fn distinct<T: Ordered>(kernel: &Unique, input: &Tensor) -> TractResult<TVec<Tensor>> {
    let data = slice::<T>(input)?;
    // The input as slices along the axis: each is `outer` runs of `inner` elements.
    let (outer, length, inner) = match kernel.axis {
        None => (1, data.len(), 1),
        Some(axis) => {
            let axis = axis_in(axis, input.rank())?;
            let shape = input.shape();
            (
                shape[..axis].iter().product(),
                shape[axis],
                shape[axis + 1..].iter().product(),
            )
        }
    };
    let run = |block: usize, at: usize| {
        let start = (block * length + at) * inner;
        &data[start..start + inner]
    };
    let compare = |left: usize, right: usize| {
        (0..outer)
            .flat_map(|block| run(block, left).iter().zip(run(block, right)))
            .map(|(left, right)| left.order(right))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    };
    let mut order: Vec<usize> = (0..length).collect();
    order.sort_by(|left, right| compare(*left, *right));
    // Equal slices lie side by side, the first of each in front, since sorting is stable.
    let mut groups: Vec<Vec<usize>> = vec![];
    for at in order {
        match groups.last_mut() {
            Some(group) if compare(group[0], at).is_eq() => group.push(at),
            _ => groups.push(vec![at]),
        }
    }
    if !kernel.sorted {
        groups.sort_by_key(|group| group[0]);
    }
    let mut inverse = vec![0_i64; length];
    for (number, group) in (0_i64..).zip(&groups) {
        group.iter().for_each(|at| inverse[*at] = number);
    }
    let mut output = Vec::with_capacity(outer * groups.len() * inner);
    for block in 0..outer {
        for group in &groups {
            output.extend_from_slice(run(block, group[0]));
        }
    }
    let count = groups.len();
    let shape: TVec<usize> = match kernel.axis {
        None => tvec![count],
        Some(axis) => {
            let mut shape: TVec<usize> = input.shape().into();
            shape[axis_in(axis, input.rank())?] = count;
            shape
        }
    };
    let signed = |numbers: &mut dyn Iterator<Item = usize>| {
        numbers.map(i64::try_from).collect::<Result<Vec<_>, _>>()
    };
    let firsts = signed(&mut groups.iter().map(|group| group[0]))?;
    let counts = signed(&mut groups.iter().map(Vec::len))?;
    Ok(tvec![
        tensor(&shape, output)?,
        tensor(&[count], firsts)?,
        tensor(&[length], inverse)?,
        tensor(&[count], counts)?,
    ])
}

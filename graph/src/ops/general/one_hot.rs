//! Indexes as rows in which one place is set: `OneHot`.
//!
//! The engine has it for indexes inside the depth alone; ONNX says that of others no place is set.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Facts, Kernel, Unknown, Values, axis_in, check_bytes, slice, tensor, volume};
use super::own::operator;

const DEPTH: usize = 1;
const VALUES: usize = 2;

#[derive(Debug)]
struct OneHot {
    axis: i64,
}

pub(super) fn one_hot(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let axis = node.get_attr_opt("axis")?.unwrap_or(-1);
    operator(context, node, "OneHot", OneHot { axis })
}

/// The only element of a tensor, as an extent of at least one.
fn depth_of(tensor: &Tensor) -> TractResult<usize> {
    let cast = tensor.cast_to::<i64>()?;
    let &[depth] = slice::<i64>(&cast)? else {
        bail!("the depth is not a single number");
    };
    let extent = usize::try_from(depth).ok().filter(|depth| *depth > 0);
    extent.with_context(|| format!("the depth is {depth}"))
}

impl Kernel for OneHot {
    fn facts(&self, inputs: &Facts<'_>, unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let (indexes, values) = (inputs.need(0)?, inputs.need(VALUES)?);
        let depth = match &inputs.need(DEPTH)?.konst {
            Some(depth) => depth_of(depth)?.to_dim(),
            None => unknown.extent(0),
        };
        let mut shape = indexes.shape.to_tvec();
        shape.insert(axis_in(self.axis, shape.len() + 1)?, depth);
        Ok(tvec![values.datum_type.fact(&*shape)])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let (indexes, values) = (inputs.need(0)?, inputs.need(VALUES)?);
        let depth = depth_of(inputs.need(DEPTH)?)?;
        let mut shape: TVec<usize> = indexes.shape().into();
        let axis = axis_in(self.axis, shape.len() + 1)?;
        let behind = volume(&shape[axis..])?;
        shape.insert(axis, depth);
        check_bytes(&shape, values.datum_type().size_of())?;
        let indexes = indexes.cast_to::<i64>()?;
        let places = places(slice::<i64>(&indexes)?, depth);
        dispatch_datum!(fill(values.datum_type())(values, &shape, &places, behind))
    }
}

/// Each index as a place, counted from the end if it is negative; `None` if it lies outside.
fn places(indexes: &[i64], depth: usize) -> Vec<Option<usize>> {
    let place = |index: &i64| {
        let extent = i64::try_from(depth).ok()?;
        let from_start = if *index < 0 { index + extent } else { *index };
        usize::try_from(from_start)
            .ok()
            .filter(|place| *place < depth)
    };
    indexes.iter().map(place).collect()
}

fn fill<T: Datum>(
    values: &Tensor,
    shape: &[usize],
    places: &[Option<usize>],
    behind: usize,
) -> TractResult<TVec<Tensor>> {
    let [off, on] = slice::<T>(values)? else {
        bail!("the values are not two: off and on");
    };
    let mut output = vec![off.clone(); volume(shape)?];
    let depth = output.len().checked_div(places.len()).unwrap_or(0);
    for (at, place) in places.iter().enumerate() {
        if let Some(place) = place {
            let (before, column) = (at / behind, at % behind);
            output[(before * depth + place) * behind + column] = on.clone();
        }
    }
    Ok(tvec![tensor(shape, output)?])
}

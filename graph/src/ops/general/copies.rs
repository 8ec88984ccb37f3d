//! Operators that move elements and compute nothing: `CenterCropPad`, `ReverseSequence`,
//! `TensorScatter`, `BitCast`.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{
    Facts, Kernel, Unknown, Values, axis_in, check_bytes, extents, slice, tensor, volume,
};
use super::own::operator;

#[derive(Debug)]
struct CenterCropPad {
    axes: Option<Vec<i64>>,
}

pub(super) fn center_crop_pad(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let axes = node.get_attr_opt_vec("axes")?;
    operator(context, node, "CenterCropPad", CenterCropPad { axes })
}

impl CenterCropPad {
    fn axes(&self, rank: usize) -> TractResult<Vec<usize>> {
        let Some(axes) = &self.axes else {
            return Ok((0..rank).collect());
        };
        let axes = axes.iter().map(|axis| axis_in(*axis, rank));
        let axes = axes.collect::<TractResult<Vec<_>>>()?;
        for (index, axis) in axes.iter().enumerate() {
            ensure!(!axes[..index].contains(axis), "axis {axis} is named twice");
        }
        Ok(axes)
    }
}

/// Non-negative numbers, as many as wanted.
fn sizes(numbers: &[i64], count: usize) -> TractResult<TVec<usize>> {
    ensure!(
        numbers.len() == count,
        "{} sizes for {count} axes",
        numbers.len()
    );
    numbers
        .iter()
        .map(|size| usize::try_from(*size).with_context(|| format!("a size is {size}")))
        .collect()
}

impl Kernel for CenterCropPad {
    fn facts(&self, inputs: &Facts<'_>, unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = inputs.need(0)?;
        let axes = self.axes(input.rank())?;
        let mut shape: TVec<TDim> = input.shape.to_tvec();
        match inputs.integers(1)? {
            Some(numbers) => {
                for (axis, size) in axes.iter().zip(sizes(&numbers, axes.len())?) {
                    shape[*axis] = size.to_dim();
                }
            }
            None => {
                for axis in axes {
                    shape[axis] = unknown.extent(axis);
                }
            }
        }
        Ok(tvec![input.datum_type.fact(&*shape)])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let input = inputs.need(0)?;
        let axes = self.axes(input.rank())?;
        let mut shape: TVec<usize> = input.shape().into();
        for (axis, size) in axes.iter().zip(sizes(&inputs.integers(1)?, axes.len())?) {
            shape[*axis] = size;
        }
        check_bytes(&shape, input.datum_type().size_of())?;
        let output = dispatch_datum!(crop_or_pad(input.datum_type())(input, &shape))?;
        Ok(tvec![output])
    }
}

fn crop_or_pad<T: Datum + Default>(input: &Tensor, shape: &[usize]) -> TractResult<Tensor> {
    let data = slice::<T>(input)?;
    let mut output = vec![T::default(); volume(shape)?];
    // Where the part that both share begins in the input and in the output, and how long it is.
    let shared: TVec<(usize, usize, usize)> = input
        .shape()
        .iter()
        .zip(shape)
        .map(|(from, to)| {
            if from > to {
                ((from - to) / 2, 0, *to)
            } else {
                (0, (to - from) / 2, *from)
            }
        })
        .collect();
    let Some(((last_from, last_to, last_len), outer)) = shared.split_last() else {
        return tensor(shape, data.to_vec());
    };
    let lines: TVec<usize> = outer.iter().map(|(_, _, len)| *len).collect();
    for_each_index(&lines, |index| {
        let place = |extents: &[usize], starts: &dyn Fn(usize) -> usize| {
            index.iter().enumerate().fold(0, |at, (axis, step)| {
                at * extents[axis] + starts(axis) + step
            })
        };
        let from = place(input.shape(), &|axis| outer[axis].0) * input.shape()[outer.len()];
        let to = place(shape, &|axis| outer[axis].1) * shape[outer.len()];
        output[to + last_to..to + last_to + last_len]
            .clone_from_slice(&data[from + last_from..from + last_from + last_len]);
    });
    tensor(shape, output)
}

/// Calls a function for each index of a shape, in row-major order.
pub(super) fn for_each_index(shape: &[usize], mut visit: impl FnMut(&[usize])) {
    if shape.contains(&0) {
        return;
    }
    let mut index: TVec<usize> = tvec![0; shape.len()];
    loop {
        visit(&index);
        let moved = (0..shape.len()).rev().any(|axis| {
            index[axis] += 1;
            let inside = index[axis] < shape[axis];
            if !inside {
                index[axis] = 0;
            }
            inside
        });
        if !moved {
            return;
        }
    }
}

#[derive(Debug)]
struct ReverseSequence {
    batch_axis: usize,
    time_axis: usize,
}

pub(super) fn reverse_sequence(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let kernel = ReverseSequence {
        batch_axis: node.get_attr_opt("batch_axis")?.unwrap_or(1),
        time_axis: node.get_attr_opt("time_axis")?.unwrap_or(0),
    };
    ensure!(
        matches!((kernel.batch_axis, kernel.time_axis), (0, 1) | (1, 0)),
        "batch_axis and time_axis must be 0 and 1, in either order"
    );
    operator(context, node, "ReverseSequence", kernel)
}

impl Kernel for ReverseSequence {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = inputs.need(0)?;
        let lengths = inputs.need(1)?;
        ensure!(input.rank() >= 2, "the input has fewer than two axes");
        ensure!(
            lengths.rank() == 1 && lengths.shape[0] == input.shape[self.batch_axis],
            "sequence_lens must have one number for each of the batch"
        );
        Ok(tvec![input.datum_type.fact(input.shape.clone())])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let input = inputs.need(0)?;
        let steps = input.shape()[self.time_axis];
        let lengths = sizes(&inputs.integers(1)?, input.shape()[self.batch_axis])?;
        for length in &lengths {
            ensure!(
                *length <= steps,
                "a sequence of {length} steps, but there are {steps}"
            );
        }
        let output = dispatch_datum!(reversed(input.datum_type())(input, self, &lengths))?;
        Ok(tvec![output])
    }
}

fn reversed<T: Datum>(
    input: &Tensor,
    kernel: &ReverseSequence,
    lengths: &[usize],
) -> TractResult<Tensor> {
    let data = slice::<T>(input)?;
    let shape = input.shape();
    let width: usize = shape[2..].iter().product();
    let mut output = Vec::with_capacity(data.len());
    for first in 0..shape[0] {
        for second in 0..shape[1] {
            let (entry, step) = if kernel.batch_axis == 0 {
                (first, second)
            } else {
                (second, first)
            };
            let source = if step < lengths[entry] {
                lengths[entry] - 1 - step
            } else {
                step
            };
            let row = if kernel.batch_axis == 0 {
                entry * shape[1] + source
            } else {
                source * shape[1] + entry
            };
            output.extend_from_slice(&data[row * width..(row + 1) * width]);
        }
    }
    tensor(shape, output)
}

#[derive(Debug)]
struct TensorScatter {
    axis: i64,
    circular: bool,
}

pub(super) fn tensor_scatter(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let mode: &str = node.get_attr_opt("mode")?.unwrap_or("linear");
    let kernel = TensorScatter {
        axis: node.get_attr_opt("axis")?.unwrap_or(-2),
        circular: match mode {
            "linear" => false,
            "circular" => true,
            other => bail!("mode is {other:?}"),
        },
    };
    operator(context, node, "TensorScatter", kernel)
}

impl Kernel for TensorScatter {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let cache = inputs.need(0)?;
        let update = inputs.need(1)?;
        let (shape, update_shape) = (extents(cache)?, extents(update)?);
        let axis = axis_in(self.axis, shape.len())?;
        ensure!(axis > 0, "the axis must not be that of the batch");
        ensure!(
            shape.len() == update_shape.len()
                && (0..shape.len()).all(|at| if at == axis {
                    update_shape[at] <= shape[at]
                } else {
                    update_shape[at] == shape[at]
                }),
            "an update of shape {update_shape:?} does not fit a cache of shape {shape:?}"
        );
        ensure!(
            cache.datum_type == update.datum_type,
            "the update has another type than the cache"
        );
        if let Some(places) = inputs.get(2) {
            ensure!(
                *extents(places)? == [shape[0]],
                "write_indices must have one number for each of the batch"
            );
        }
        Ok(tvec![cache.datum_type.fact(cache.shape.clone())])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let cache = inputs.need(0)?;
        let starts = match inputs.get(2) {
            Some(_) => sizes(&inputs.integers(2)?, cache.shape()[0])?,
            None => tvec![0; cache.shape()[0]],
        };
        let output = dispatch_datum!(scatter_rows(cache.datum_type())(
            cache,
            inputs.need(1)?,
            self,
            &starts
        ))?;
        Ok(tvec![output])
    }
}

fn scatter_rows<T: Datum>(
    cache: &Tensor,
    update: &Tensor,
    kernel: &TensorScatter,
    starts: &[usize],
) -> TractResult<Tensor> {
    let mut output = slice::<T>(cache)?.to_vec();
    let update_data = slice::<T>(update)?;
    let shape = cache.shape();
    let axis = axis_in(kernel.axis, shape.len())?;
    let width: usize = shape[axis + 1..].iter().product();
    let (length, steps) = (shape[axis], update.shape()[axis]);
    let inner: usize = shape[1..axis].iter().product();
    for (batch, start) in starts.iter().enumerate() {
        ensure!(
            kernel.circular || start.checked_add(steps).is_some_and(|end| end <= length),
            "write index {start} and {steps} steps pass the end of a cache of {length}"
        );
        for row in batch * inner..(batch + 1) * inner {
            for step in 0..steps {
                let place = (start % length.max(1) + step) % length.max(1);
                let to =
                    (row * length + if kernel.circular { place } else { start + step }) * width;
                let from = (row * steps + step) * width;
                output[to..to + width].clone_from_slice(&update_data[from..from + width]);
            }
        }
    }
    tensor(shape, output)
}

#[derive(Debug)]
struct BitCast {
    to: DatumType,
}

pub(super) fn bit_cast(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let to: i32 = node.get_attr("to")?;
    let to = DataType::try_from(to).with_context(|| format!("element type {to} is unknown"))?;
    let to = DatumType::try_from(to)?;
    ensure!(to.is_copy(), "strings have no fixed bits");
    operator(context, node, "BitCast", BitCast { to })
}

impl Kernel for BitCast {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = inputs.need(0)?;
        ensure!(
            input.datum_type.is_copy() && input.datum_type.size_of() == self.to.size_of(),
            "the bits of {:?} are not as many as those of {:?}",
            input.datum_type,
            self.to
        );
        Ok(tvec![self.to.fact(input.shape.clone())])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let input = inputs.need(0)?;
        let mut output = Tensor::zero_dt(self.to, input.shape())?;
        if input.volume() == 0 {
            return Ok(tvec![output]);
        }
        if self.to == DatumType::Bool {
            let normal = input.as_bytes().iter().all(|byte| *byte <= 1);
            ensure!(normal, "a byte other than 0 and 1 is no boolean");
        }
        output.as_bytes_mut().copy_from_slice(input.as_bytes());
        Ok(tvec![output])
    }
}

//! Products along an axis: `CumProd`.

use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::kernel::{Facts, Kernel, Unknown, Values, axis_in, slice, tensor};
use super::own::operator;

#[derive(Debug)]
struct CumProd {
    /// Each product leaves its own element out.
    exclusive: bool,
    /// Products run from the end.
    reverse: bool,
}

pub(super) fn cum_prod(
    context: &ParsingContext<'_>,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let kernel = CumProd {
        exclusive: node.get_attr_opt("exclusive")?.unwrap_or(false),
        reverse: node.get_attr_opt("reverse")?.unwrap_or(false),
    };
    operator(context, node, "CumProd", kernel)
}

/// Calls `products` on one type of numbers: `one`, and how two are multiplied.
macro_rules! products {
    ($kernel:expr, $input:expr, $axis:expr, $($variant:ident $number:ty: $one:expr, $times:expr;)*) => {
        match $input.datum_type() {
            $(DatumType::$variant => products::<$number>($kernel, $input, $axis, $one, $times),)*
            other => bail!("{other:?} cannot be multiplied"),
        }
    };
}

impl Kernel for CumProd {
    fn facts(&self, inputs: &Facts<'_>, _unknown: &Unknown) -> TractResult<TVec<TypedFact>> {
        let input = inputs.need(0)?;
        if let Some(axis) = inputs.integers(1)? {
            let &[axis] = &*axis else {
                bail!("the axis is not a single number");
            };
            axis_in(axis, input.rank())?;
        }
        Ok(tvec![input.datum_type.fact(input.shape.clone())])
    }

    fn run(&self, inputs: &Values<'_>) -> TractResult<TVec<Tensor>> {
        let input = inputs.need(0)?;
        let axis = axis_in(inputs.integer(1)?, input.rank())?;
        let output = products!(self, input, axis,
            I8 i8: 1, i8::wrapping_mul;
            I16 i16: 1, i16::wrapping_mul;
            I32 i32: 1, i32::wrapping_mul;
            I64 i64: 1, i64::wrapping_mul;
            U8 u8: 1, u8::wrapping_mul;
            U16 u16: 1, u16::wrapping_mul;
            U32 u32: 1, u32::wrapping_mul;
            U64 u64: 1, u64::wrapping_mul;
            F16 f16: f16::ONE, |a, b| a * b;
            F32 f32: 1.0, |a, b| a * b;
            F64 f64: 1.0, |a, b| a * b;
        )?;
        Ok(tvec![output])
    }
}

fn products<T: Datum + Copy>(
    kernel: &CumProd,
    input: &Tensor,
    axis: usize,
    one: T,
    times: impl Fn(T, T) -> T,
) -> TractResult<Tensor> {
    let shape = input.shape();
    let mut data = slice::<T>(input)?.to_vec();
    let stride: usize = shape[axis + 1..].iter().product();
    let length = shape[axis];
    for block in data.chunks_exact_mut((length * stride).max(1)) {
        for start in 0..stride {
            let mut product = one;
            for step in 0..length {
                let step = if kernel.reverse {
                    length - 1 - step
                } else {
                    step
                };
                let element = &mut block[step * stride + start];
                let next = times(product, *element);
                *element = if kernel.exclusive { product } else { next };
                product = next;
            }
        }
    }
    tensor(shape, data)
}

//! `BitShift`, with a result for every shift: by a negative number, or by more bits than there are.

use tract_onnx::model::OnnxOpRegister;
use tract_onnx::prelude::tract_ndarray::Zip;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::broadcast::multi_broadcast;
use tract_onnx::tract_hir::internal::*;

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("BitShift", |_, node| {
        let way = match node.get_attr::<String>("direction")?.as_str() {
            "LEFT" => Way::Left,
            "RIGHT" => Way::Right,
            other => bail!("BitShift to {other:?}"),
        };
        Ok((expand(BitShift(way)), vec![]))
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Left,
    Right,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct BitShift(Way);

impl Expansion for BitShift {
    fn name(&self) -> StaticName {
        "BitShift".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 2)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.given_2(&inputs[0].shape, &inputs[1].shape, |solver, one, other| {
            solver.equals(&outputs[0].shape, multi_broadcast(&[one, other])?)
        })
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        model.wire_node(prefix, TypedBitShift(self.0), inputs)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct TypedBitShift(Way);

impl Op for TypedBitShift {
    fn name(&self) -> StaticName {
        "BitShift".into()
    }

    op_as_typed_op!();
}

impl EvalOp for TypedBitShift {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let shape = multi_broadcast(&[inputs[0].shape(), inputs[1].shape()])?;
        let mut output = Tensor::zero_dt(inputs[0].datum_type(), &shape)?;
        macro_rules! shift {
            ($type:ty) => {{
                let values = inputs[0].to_plain_array_view::<$type>()?;
                let values = values
                    .broadcast(&*shape)
                    .context("shapes do not broadcast")?;
                let amounts = inputs[1].to_plain_array_view::<$type>()?;
                let amounts = amounts
                    .broadcast(&*shape)
                    .context("shapes do not broadcast")?;
                let mut outputs = output.to_plain_array_view_mut::<$type>()?;
                let zip = Zip::from(&mut outputs).and(&values).and(&amounts);
                zip.for_each(|output, value, amount| {
                    let bits = <$type>::BITS;
                    let amount = u32::try_from(*amount).ok().filter(|amount| *amount < bits);
                    *output = match (self.0, amount) {
                        (Way::Left, Some(amount)) => value << amount,
                        (Way::Left, None) => 0,
                        (Way::Right, Some(amount)) => value >> amount,
                        // One bit is left: that of the sign, or none.
                        (Way::Right, None) => (value >> (bits - 1)) >> 1,
                    };
                });
            }};
        }
        match inputs[0].datum_type() {
            DatumType::U8 => shift!(u8),
            DatumType::U16 => shift!(u16),
            DatumType::U32 => shift!(u32),
            DatumType::U64 => shift!(u64),
            DatumType::I8 => shift!(i8),
            DatumType::I16 => shift!(i16),
            DatumType::I32 => shift!(i32),
            DatumType::I64 => shift!(i64),
            other => bail!("BitShift of {other:?}"),
        }
        Ok(tvec![output.into_tvalue()])
    }
}

impl TypedOp for TypedBitShift {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shape = multi_broadcast(&[&*inputs[0].shape, &*inputs[1].shape])?;
        Ok(tvec![inputs[0].datum_type.fact(shape)])
    }

    as_op!();
}

//! `BatchNormalization`, with parameters that may come from anywhere, and in training.

use tract_onnx::model::OnnxOpRegister;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::ops::cast::cast;
use tract_onnx::tract_core::ops::change_axes::AxisOp;
use tract_onnx::tract_core::ops::math;
use tract_onnx::tract_hir::internal::*;
use tract_onnx::tract_hir::ops::nn::{Reduce, Reducer};

pub(super) fn register(operators: &mut OnnxOpRegister) {
    operators.insert("BatchNormalization", |_, node| {
        Ok((expand(parse(node)?), vec![]))
    });
}

#[derive(Clone, Debug, PartialEq)]
struct BatchNorm {
    epsilon: f32,
    /// How much of the running statistics stays, if the batch's own are taken.
    training: Option<f32>,
    outputs: usize,
}

fn parse(node: &NodeProto) -> TractResult<BatchNorm> {
    if node.get_attr_opt::<i64>("spatial")?.unwrap_or(1) != 1 {
        bail!("BatchNormalization with `spatial` off is not implemented");
    }
    let is_training = node.get_attr_opt::<i64>("training_mode")?.unwrap_or(0) != 0;
    let momentum = node.get_attr_opt("momentum")?.unwrap_or(0.9);
    // Before opset 14 further outputs are statistics that inference does not make.
    let outputs = if is_training { node.output.len() } else { 1 };
    if node.output.len() != outputs {
        bail!("BatchNormalization outside training gives one output");
    }
    Ok(BatchNorm {
        epsilon: node.get_attr_opt("epsilon")?.unwrap_or(1e-5),
        training: is_training.then_some(momentum),
        outputs,
    })
}

impl Expansion for BatchNorm {
    fn name(&self) -> StaticName {
        "BatchNormalization".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.outputs)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, 5)?;
        check_output_arity(outputs, self.outputs)?;
        solver.equals(&inputs[0].datum_type, &outputs[0].datum_type)?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)?;
        for input in &inputs[1..] {
            solver.equals(&input.rank, 1)?;
            solver.equals(&input.shape[0], &inputs[0].shape[1])?;
        }
        for (output, input) in outputs.iter().skip(1).zip(&inputs[3..]) {
            solver.equals(&output.datum_type, &input.datum_type)?;
            solver.equals(&output.shape, &input.shape)?;
        }
        Ok(())
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let fact = model.outlet_fact(inputs[0])?.clone();
        let mut wire = Wire {
            prefix,
            model,
            count: 0,
        };
        // Statistics in half precision lose too much.
        let float = match fact.datum_type {
            DatumType::F64 => DatumType::F64,
            _ => DatumType::F32,
        };
        let values = wire.cast(inputs[0], float)?;
        let mut params: TVec<OutletId> = tvec![];
        for input in &inputs[1..5] {
            let mut param = wire.cast(*input, float)?;
            for _ in 2..fact.rank() {
                let rank = wire.model.outlet_fact(param)?.rank();
                param = wire.node(AxisOp::Add(rank), &[param])?;
            }
            params.push(wire.node(AxisOp::Add(0), &[param])?);
        }
        let [scale, bias, mut mean, mut variance] = params[..] else {
            bail!("BatchNormalization takes five inputs");
        };
        let mut running = tvec![];
        if let Some(momentum) = self.training {
            let axes: Vec<i64> = (0..i64::try_from(fact.rank())?)
                .filter(|axis| *axis != 1)
                .collect();
            let reduce = Reduce::new(Some(axes), true, Reducer::Mean);
            let batch_mean = wire.expand(&reduce, values)?;
            let centred = wire.node(math::sub(), &[values, batch_mean])?;
            let squared = wire.node(math::mul(), &[centred, centred])?;
            let batch_variance = wire.expand(&reduce, squared)?;
            for (old, new, input) in [(mean, batch_mean, 3), (variance, batch_variance, 4)] {
                let stays = wire.scalar(momentum, float, fact.rank())?;
                let comes = wire.scalar(1.0 - momentum, float, fact.rank())?;
                let old = wire.node(math::mul(), &[old, stays])?;
                let new = wire.node(math::mul(), &[new, comes])?;
                let mut sum = wire.node(math::add(), &[old, new])?;
                for _ in 2..fact.rank() {
                    sum = wire.node(AxisOp::Rm(2), &[sum])?;
                }
                sum = wire.node(AxisOp::Rm(0), &[sum])?;
                let given = wire.model.outlet_fact(inputs[input])?.datum_type;
                running.push(wire.cast(sum, given)?);
            }
            (mean, variance) = (batch_mean, batch_variance);
        }
        let epsilon = wire.scalar(self.epsilon, float, fact.rank())?;
        let variance = wire.node(math::add(), &[variance, epsilon])?;
        let deviation = wire.node(math::sqrt(), &[variance])?;
        let slope = wire.node(math::div(), &[scale, deviation])?;
        let shift = wire.node(math::mul(), &[mean, slope])?;
        let intercept = wire.node(math::sub(), &[bias, shift])?;
        let scaled = wire.node(math::mul(), &[values, slope])?;
        let normal = wire.node(math::add(), &[scaled, intercept])?;
        let mut outputs = tvec![wire.cast(normal, fact.datum_type)?];
        outputs.extend(running);
        outputs.truncate(self.outputs);
        Ok(outputs)
    }
}

/// Adds nodes of one output under numbered names.
struct Wire<'a> {
    prefix: &'a str,
    model: &'a mut TypedModel,
    count: usize,
}

impl Wire<'_> {
    fn name(&mut self) -> String {
        self.count += 1;
        format!("{}.{}", self.prefix, self.count)
    }

    fn node(
        &mut self,
        op: impl Into<Box<dyn TypedOp>>,
        inputs: &[OutletId],
    ) -> TractResult<OutletId> {
        let name = self.name();
        Ok(self.model.wire_node(name, op, inputs)?[0])
    }

    fn expand(&mut self, op: &dyn Expansion, input: OutletId) -> TractResult<OutletId> {
        let name = self.name();
        Ok(op.wire(&name, self.model, &[input])?[0])
    }

    fn cast(&mut self, input: OutletId, to: DatumType) -> TractResult<OutletId> {
        if self.model.outlet_fact(input)?.datum_type == to {
            return Ok(input);
        }
        self.node(cast(to), &[input])
    }

    fn scalar(&mut self, value: f32, like: DatumType, rank: usize) -> TractResult<OutletId> {
        let value = tensor0(value).cast_to_dt(like)?.into_owned();
        let name = self.name();
        self.model.add_const(name, value.broadcast_into_rank(rank)?)
    }
}

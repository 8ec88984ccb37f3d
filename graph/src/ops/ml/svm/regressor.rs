//! SVMRegressor: a number for each row.

use tract_onnx::prelude::{DatumType, TValue, TVec, Tensor, TractResult};
use tract_onnx::tract_hir::internal::{bail, ensure, tvec};

use super::super::attributes::Attributes;
use super::super::linear::{Weights, dot};
use super::super::scores::PostTransform;
use super::super::tensors::{extents, floats, row_count, table, tensor};
use super::super::{Fact, Kernel};
use super::{Vectors, linear};

/// A number for each row; of one class whether it belongs to it, 1 or -1.
#[derive(Debug)]
pub(in super::super) struct SvmRegressor {
    machine: RegressionMachine,
    is_one_class: bool,
}

#[derive(Debug)]
enum RegressionMachine {
    Linear(Weights),
    Vectors {
        vectors: Vectors,
        coefficients: Vec<f32>,
        rho: f32,
    },
}

impl Kernel for SvmRegressor {
    const NAME: &'static str = "SVMRegressor";

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        // ONNX Runtime transforms nothing here.
        PostTransform::read(attributes)?;
        let is_one_class = attributes.int("one_class", 0)? != 0;
        let machine = match attributes.int("n_supports", 0)? {
            0 => RegressionMachine::Linear(linear(attributes, 1)?),
            count => Self::vectors(attributes, count)?,
        };
        Ok(Self {
            machine,
            is_one_class,
        })
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let rows = row_count(&inputs[0])?;
        Ok(tvec![table(DatumType::F32, rows, 1)])
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let (rows, columns) = extents(&inputs[0])?;
        match &self.machine {
            RegressionMachine::Linear(weights) => weights.check_columns(columns)?,
            RegressionMachine::Vectors { vectors, .. } => vectors.check_columns(columns)?,
        }
        let values = floats(&inputs[0])?;
        let scores = values.chunks_exact(columns).map(|row| {
            let score = self.score(row);
            match self.is_one_class {
                true if score > 0.0 => 1.0,
                true => -1.0,
                false => score,
            }
        });
        Ok(tvec![tensor(&[rows, 1], scores.collect())?])
    }
}

impl SvmRegressor {
    fn vectors(attributes: &Attributes<'_>, count: i64) -> TractResult<RegressionMachine> {
        let coefficients = attributes.floats("coefficients")?.to_vec();
        ensure!(
            usize::try_from(count).is_ok_and(|count| count == coefficients.len()),
            "there are {} coefficients for {count} vectors",
            coefficients.len()
        );
        let Some(rho) = attributes.floats("rho")?.first() else {
            bail!("\"rho\" is empty");
        };
        Ok(RegressionMachine::Vectors {
            vectors: Vectors::read(attributes, coefficients.len())?,
            coefficients,
            rho: *rho,
        })
    }

    fn score(&self, row: &[f32]) -> f32 {
        match &self.machine {
            RegressionMachine::Linear(weights) => weights.scores(row).sum(),
            RegressionMachine::Vectors {
                vectors,
                coefficients,
                rho,
            } => {
                let likeness: Vec<f32> = vectors.likeness(row).collect();
                dot(&likeness, coefficients) + rho
            }
        }
    }
}

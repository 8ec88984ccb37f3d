//! Operators that change each number by itself or by its row: Scaler, Normalizer, Binarizer, Imputer.

use tract_onnx::prelude::{DatumType, TValue, TVec, Tensor, TractResult};
use tract_onnx::tract_hir::internal::{bail, ensure, tvec};

use super::attributes::Attributes;
use super::numbers::Real;
use super::tensors::{cast, check_number, elements, extents, row_count, tensor};
use super::{Fact, Kernel};

/// Columns of a tensor with any number of axes: the second axis, or the only one.
fn stride(shape: &[usize]) -> TractResult<usize> {
    match shape {
        [] => bail!("the input has no axis"),
        [only] => Ok(*only),
        [_, second, ..] => Ok(*second),
    }
}

/// `(x - offset) * scale`, by column or for all.
#[derive(Debug)]
pub(super) struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

impl Kernel for Scaler {
    const NAME: &'static str = "Scaler";

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        let offset = attributes.floats("offset")?.to_vec();
        let scale = attributes.floats("scale")?.to_vec();
        ensure!(!scale.is_empty(), "\"scale\" is empty");
        ensure!(
            scale.len() == offset.len(),
            "\"scale\" has {} values and \"offset\" {}",
            scale.len(),
            offset.len()
        );
        Ok(Self { offset, scale })
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (datum_type, shape) = &inputs[0];
        check_number(*datum_type)?;
        Ok(tvec![(DatumType::F32, shape.clone())])
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = &inputs[0];
        let scaled = if input.datum_type() == DatumType::F64 {
            self.scaled::<f64>(input)?
        } else {
            self.scaled::<f32>(input)?
        };
        Ok(tvec![tensor(input.shape(), scaled)?])
    }
}

impl Scaler {
    fn scaled<T: Real>(&self, input: &Tensor) -> TractResult<Vec<f32>> {
        let stride = stride(input.shape())?;
        let values = cast::<T>(input)?;
        let scaled = |value: &T, offset: f32, scale: f32| {
            ((*value - T::from_single(offset)) * T::from_single(scale)).single()
        };
        if self.scale.len() == stride {
            let rows = values.chunks_exact(stride);
            return Ok(rows
                .flat_map(|row| row.iter().zip(&self.offset).zip(&self.scale))
                .map(|((value, offset), scale)| scaled(value, *offset, *scale))
                .collect());
        }
        ensure!(
            self.scale.len() == 1,
            "there are {} scales for {stride} columns",
            self.scale.len()
        );
        let (offset, scale) = (self.offset[0], self.scale[0]);
        Ok(values
            .iter()
            .map(|value| scaled(value, offset, scale))
            .collect())
    }
}

/// What a row is divided by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Normalizer {
    /// Its largest value.
    Max,
    /// The sum of its absolute values.
    L1,
    /// Its Euclidean length.
    L2,
}

impl Kernel for Normalizer {
    const NAME: &'static str = "Normalizer";

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        match attributes.text("norm", "MAX")? {
            "MAX" => Ok(Self::Max),
            "L1" => Ok(Self::L1),
            "L2" => Ok(Self::L2),
            other => bail!("there is no norm {other:?}"),
        }
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        row_count(&inputs[0])?;
        let (_, shape) = &inputs[0];
        Ok(tvec![(DatumType::F32, shape.clone())])
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = &inputs[0];
        let normalized = if input.datum_type() == DatumType::F32 {
            self.normalized::<f32>(input)?
        } else {
            self.normalized::<f64>(input)?
        };
        Ok(tvec![tensor(input.shape(), normalized)?])
    }
}

impl Normalizer {
    fn normalized<T: Real>(self, input: &Tensor) -> TractResult<Vec<f32>> {
        let (_, columns) = extents(input)?;
        let values = cast::<T>(input)?;
        let mut normalized = Vec::with_capacity(values.len());
        for row in values.chunks_exact(columns.max(1)) {
            self.append(row, &mut normalized);
        }
        Ok(normalized)
    }

    fn append<T: Real>(self, row: &[T], normalized: &mut Vec<f32>) {
        let single = |value: &T| value.single();
        let square = |value: &T| (*value * *value).single();
        let divisor = match self {
            Self::Max => row.iter().map(single).fold(f32::MIN, f32::max),
            Self::L1 => row.iter().map(|value| value.abs().single()).sum::<f32>(),
            Self::L2 => row.iter().map(square).sum::<f32>(),
        };
        if divisor == 0.0 {
            normalized.extend(row.iter().map(single));
            return;
        }
        match self {
            Self::Max | Self::L1 => {
                normalized.extend(row.iter().map(|value| value.single() / divisor));
            }
            Self::L2 => normalized.extend(row.iter().map(|value| {
                let length = (square(value) / divisor).sqrt();
                if *value < T::zero() { -length } else { length }
            })),
        }
    }
}

/// One where a number is above a threshold, zero elsewhere.
#[derive(Debug)]
pub(super) struct Binarizer {
    threshold: f32,
}

impl Kernel for Binarizer {
    const NAME: &'static str = "Binarizer";

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        let threshold = attributes.float("threshold", 0.0)?;
        Ok(Self { threshold })
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        check_number(inputs[0].0)?;
        Ok(tvec![inputs[0].clone()])
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = &inputs[0];
        let values = cast::<f64>(input)?;
        if let Some(at) = values.iter().position(|value| value.is_nan()) {
            bail!("element {at} of the input is not a number");
        }
        let threshold = f64::from(self.threshold);
        let bits = values.iter().map(|value| i64::from(*value > threshold));
        let bits = tensor(input.shape(), bits.collect())?;
        let bits = bits.cast_to_dt(input.datum_type())?.into_owned();
        Ok(tvec![bits])
    }
}

/// Puts other values in place of a missing one.
#[derive(Debug)]
pub(super) enum Imputer {
    Floats { replaced: f32, imputed: Vec<f32> },
    Ints { replaced: i64, imputed: Vec<i64> },
}

impl Kernel for Imputer {
    const NAME: &'static str = "Imputer";

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        let floats = attributes.floats("imputed_value_floats")?;
        let ints = attributes.ints("imputed_value_int64s")?;
        ensure!(
            floats.is_empty() != ints.is_empty(),
            "one of \"imputed_value_floats\" and \"imputed_value_int64s\" must have values"
        );
        if ints.is_empty() {
            Ok(Self::Floats {
                replaced: attributes.float("replaced_value_float", 0.0)?,
                imputed: floats.to_vec(),
            })
        } else {
            Ok(Self::Ints {
                replaced: attributes.int("replaced_value_int64", 0)?,
                imputed: ints.to_vec(),
            })
        }
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (datum_type, _) = inputs[0];
        let fits = match self {
            Self::Floats { .. } => matches!(datum_type, DatumType::F32 | DatumType::F64),
            Self::Ints { .. } => matches!(datum_type, DatumType::I32 | DatumType::I64),
        };
        ensure!(
            fits,
            "the imputed values do not fit an input of {datum_type:?}"
        );
        Ok(tvec![inputs[0].clone()])
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = &inputs[0];
        let output = match self {
            Self::Floats { replaced, imputed } if input.datum_type() == DatumType::F64 => {
                let imputed: Vec<f64> = imputed.iter().map(|value| f64::from(*value)).collect();
                impute(input, f64::from(*replaced), &imputed)?
            }
            Self::Floats { replaced, imputed } => impute(input, *replaced, imputed)?,
            Self::Ints { replaced, imputed } if input.datum_type() == DatumType::I32 => {
                let narrow = |value: &i64| i32::try_from(*value);
                let imputed: Vec<i32> = imputed.iter().map(narrow).collect::<Result<_, _>>()?;
                match i32::try_from(*replaced) {
                    Ok(replaced) => impute(input, replaced, &imputed)?,
                    Err(_) => Tensor::clone(&**input),
                }
            }
            Self::Ints { replaced, imputed } => impute(input, *replaced, imputed)?,
        };
        Ok(tvec![output])
    }
}

fn impute<T>(input: &Tensor, replaced: T, imputed: &[T]) -> TractResult<Tensor>
where
    T: tract_onnx::prelude::Datum + Copy + PartialOrd,
{
    let stride = stride(input.shape())?;
    // Only what is not a number is unordered with itself.
    let is_nan = |value: &T| value.partial_cmp(value).is_none();
    let is_missing = |value: &T| *value == replaced || (is_nan(value) && is_nan(&replaced));
    let values = elements::<T>(input)?.iter().enumerate();
    let filled = values.map(|(at, value)| match is_missing(value) {
        true if imputed.len() == stride => imputed[at % stride],
        true => imputed[0],
        false => *value,
    });
    tensor(input.shape(), filled.collect())
}

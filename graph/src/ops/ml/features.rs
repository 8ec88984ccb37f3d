//! Operators that choose and join columns: ArrayFeatureExtractor, FeatureVectorizer.

use tract_onnx::prelude::{Datum, DatumType, TDim, TValue, TVec, Tensor, TractResult};
use tract_onnx::tract_hir::internal::{bail, ensure, tvec};

use super::attributes::Attributes;
use super::tensors::{cast, check_number, elements, floats, table, tensor};
use super::{Fact, Kernel};

/// Most columns that features are joined into.
const COLUMNS_MAX: usize = 1 << 24;

/// The elements of the last axis at the places that the second input lists.
#[derive(Debug)]
pub(super) struct ArrayFeatureExtractor;

impl Kernel for ArrayFeatureExtractor {
    const NAME: &'static str = "ArrayFeatureExtractor";

    fn read(_attributes: &Attributes<'_>) -> TractResult<Self> {
        Ok(Self)
    }

    fn inputs(&self) -> usize {
        2
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let [(datum_type, shape), (index_type, indices)] = inputs else {
            bail!("it takes two inputs");
        };
        ensure!(
            matches!(index_type, DatumType::I64 | DatumType::TDim),
            "the indices are of type {index_type:?}"
        );
        if *datum_type != DatumType::String {
            check_number(*datum_type)?;
        }
        let count: TDim = indices.iter().product();
        let shape = match shape.as_slice() {
            [] => bail!("the input has no axis"),
            // Exports of older converters depend on a leading axis here.
            [_] => tvec![1.into(), count],
            [outer @ .., _] => outer.iter().cloned().chain([count]).collect(),
        };
        Ok(tvec![(*datum_type, shape)])
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let [input, indices] = inputs else {
            bail!("it takes two inputs");
        };
        let indices = cast::<i64>(indices)?;
        let output = match input.datum_type() {
            DatumType::String => extract::<String>(input, &indices)?,
            DatumType::F32 => extract::<f32>(input, &indices)?,
            DatumType::F64 => extract::<f64>(input, &indices)?,
            DatumType::I32 => extract::<i32>(input, &indices)?,
            DatumType::I64 => extract::<i64>(input, &indices)?,
            DatumType::TDim => extract::<TDim>(input, &indices)?,
            other => bail!("the input has elements of type {other:?}"),
        };
        Ok(tvec![output])
    }
}

fn extract<T: Datum>(input: &Tensor, indices: &[i64]) -> TractResult<Tensor> {
    ensure!(!indices.is_empty(), "there are no indices");
    let Some((columns, outer)) = input.shape().split_last() else {
        bail!("the input has no axis");
    };
    let indices = indices
        .iter()
        .map(|index| match usize::try_from(*index) {
            Ok(place) if place < *columns => Ok(place),
            Ok(_) | Err(_) => bail!("index {index} is not within {columns} columns"),
        })
        .collect::<TractResult<Vec<usize>>>()?;
    let rows = elements::<T>(input)?.chunks_exact(*columns);
    let extracted = rows
        .flat_map(|row| indices.iter().map(|place| row[*place].clone()))
        .collect();
    let mut shape: TVec<usize> = match outer {
        [] => tvec![1],
        outer => outer.into(),
    };
    shape.push(indices.len());
    tensor(&shape, extracted)
}

/// The columns of all inputs side by side, each cut or filled with zeros to a declared width.
#[derive(Debug)]
pub(super) struct FeatureVectorizer {
    widths: Vec<usize>,
    total: usize,
}

impl Kernel for FeatureVectorizer {
    const NAME: &'static str = "FeatureVectorizer";

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        let declared = attributes.ints("inputdimensions")?;
        ensure!(!declared.is_empty(), "\"inputdimensions\" is empty");
        let mut total = 0_usize;
        let mut widths = Vec::with_capacity(declared.len());
        for width in declared {
            match usize::try_from(*width) {
                Ok(width) if width <= COLUMNS_MAX - total => {
                    total += width;
                    widths.push(width);
                }
                Ok(_) | Err(_) => bail!(
                    "\"inputdimensions\" has {width} after {total} columns, at most {COLUMNS_MAX} \
                     are allowed"
                ),
            }
        }
        Ok(Self { widths, total })
    }

    fn inputs(&self) -> usize {
        self.widths.len()
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        for (datum_type, _) in inputs {
            check_number(*datum_type)?;
        }
        let rows = match inputs[0].1.as_slice() {
            [] => bail!("the input has no axis"),
            [_] => 1.into(),
            [rows, ..] => rows.clone(),
        };
        Ok(tvec![table(DatumType::F32, rows, self.total)])
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let rows = row_shape(&inputs[0]).0;
        let mut joined = vec![0.0_f32; rows * self.total];
        let mut start = 0;
        for (at, (input, width)) in inputs.iter().zip(&self.widths).enumerate() {
            let (got, columns) = row_shape(input);
            ensure!(
                got == rows,
                "input {at} has {got} rows, the first has {rows}"
            );
            let values = floats(input)?;
            let copied = columns.min(*width);
            if copied > 0 {
                let from = values.chunks_exact(columns);
                for (row, from) in joined.chunks_exact_mut(self.total).zip(from) {
                    row[start..start + copied].copy_from_slice(&from[..copied]);
                }
            }
            start += width;
        }
        Ok(tvec![tensor(&[rows, self.total], joined)?])
    }
}

/// Rows, and elements of each.
fn row_shape(input: &Tensor) -> (usize, usize) {
    match input.shape() {
        [] => (1, 1),
        [columns] => (1, *columns),
        [rows, inner @ ..] => (*rows, inner.iter().product()),
    }
}

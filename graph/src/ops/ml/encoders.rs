//! Operators that look values up: LabelEncoder, CategoryMapper, OneHotEncoder.

use std::collections::HashMap;

use tract_onnx::prelude::{Datum, DatumType, TValue, TVec, Tensor, TractResult};
use tract_onnx::tract_hir::internal::{bail, ensure, tvec};

use super::attributes::Attributes;
use super::tensors::{cast, check_number, elements, tensor};
use super::{Fact, Kernel};

/// Where each key stands in a list.
#[derive(Debug)]
enum Index {
    Ints(HashMap<i64, usize>),
    /// By the bits of 64-bit floats, see [`bits`].
    Floats(HashMap<u64, usize>),
    Texts(HashMap<String, usize>),
}

/// Which of several equal keys counts.
#[derive(Clone, Copy)]
enum Repeated {
    First,
    Last,
}

/// Equal for numbers that are equal, and for all that are not a number.
fn bits(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits()
    } else {
        (value + 0.0).to_bits()
    }
}

fn index<T: Eq + std::hash::Hash>(
    keys: impl Iterator<Item = T>,
    repeated: Repeated,
) -> HashMap<T, usize> {
    let mut index = HashMap::new();
    for (at, key) in keys.enumerate() {
        match repeated {
            Repeated::First => _ = index.entry(key).or_insert(at),
            Repeated::Last => _ = index.insert(key, at),
        }
    }
    index
}

impl Index {
    fn new(keys: &Tensor, repeated: Repeated) -> TractResult<Self> {
        match keys.datum_type() {
            DatumType::String => {
                let keys = elements::<String>(keys)?.iter().cloned();
                Ok(Self::Texts(index(keys, repeated)))
            }
            DatumType::F32 | DatumType::F64 => {
                let keys = cast::<f64>(keys)?;
                Ok(Self::Floats(index(
                    keys.iter().copied().map(bits),
                    repeated,
                )))
            }
            DatumType::I16 | DatumType::I32 | DatumType::I64 => {
                let keys = cast::<i64>(keys)?;
                Ok(Self::Ints(index(keys.iter().copied(), repeated)))
            }
            other => bail!("keys cannot be of type {other:?}"),
        }
    }

    /// Calls `found` with the place of each element's key, if there is one.
    fn find(&self, input: &Tensor, found: &mut dyn FnMut(Option<usize>)) -> TractResult<()> {
        match self {
            Self::Texts(index) => elements::<String>(input)?
                .iter()
                .for_each(|key| found(index.get(key).copied())),
            Self::Floats(index) => cast::<f64>(input)?
                .iter()
                .for_each(|key| found(index.get(&bits(*key)).copied())),
            Self::Ints(index) => cast::<i64>(input)?
                .iter()
                .for_each(|key| found(index.get(key).copied())),
        }
        Ok(())
    }
}

/// From a value of one list to the value at the same place in another.
#[derive(Debug)]
struct Mapping {
    key_type: DatumType,
    index: Index,
    values: Tensor,
    default: Tensor,
}

impl Mapping {
    fn new(
        keys: &Tensor,
        values: Tensor,
        default: Tensor,
        repeated: Repeated,
    ) -> TractResult<Self> {
        ensure!(
            keys.len() == values.len(),
            "there are {} keys and {} values",
            keys.len(),
            values.len()
        );
        Ok(Self {
            key_type: keys.datum_type(),
            index: Index::new(keys, repeated)?,
            values,
            default,
        })
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (datum_type, shape) = &inputs[0];
        ensure!(
            *datum_type == self.key_type,
            "the keys are of type {:?}, the input is of type {datum_type:?}",
            self.key_type
        );
        Ok(tvec![(self.values.datum_type(), shape.clone())])
    }

    fn compute(&self, input: &Tensor) -> TractResult<Tensor> {
        match self.values.datum_type() {
            DatumType::String => self.mapped::<String>(input),
            DatumType::F32 => self.mapped::<f32>(input),
            DatumType::F64 => self.mapped::<f64>(input),
            DatumType::I16 => self.mapped::<i16>(input),
            DatumType::I32 => self.mapped::<i32>(input),
            DatumType::I64 => self.mapped::<i64>(input),
            other => bail!("values cannot be of type {other:?}"),
        }
    }

    fn mapped<T: Datum>(&self, input: &Tensor) -> TractResult<Tensor> {
        let values = elements::<T>(&self.values)?;
        let default = &elements::<T>(&self.default)?[0];
        let mut mapped = Vec::with_capacity(input.len());
        self.index.find(input, &mut |place| {
            mapped.push(place.map_or(default, |place| &values[place]).clone());
        })?;
        tensor(input.shape(), mapped)
    }
}

fn texts(values: &[&str]) -> TractResult<Tensor> {
    let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
    tensor(&[values.len()], values)
}

fn list<T: Datum>(values: &[T]) -> TractResult<Tensor> {
    tensor(&[values.len()], values.to_vec())
}

/// Both ways between text and numbers; the input's type says which.
#[derive(Debug)]
struct TwoWay {
    to_text: Mapping,
    to_int: Mapping,
}

impl TwoWay {
    fn new(attributes: &Attributes<'_>, ints: &[i64], names: &[&str]) -> TractResult<Self> {
        let default_text = attributes.text("default_string", "_Unused")?;
        let default_int = attributes.int("default_int64", -1)?;
        let (ints, names) = (list(ints)?, texts(names)?);
        let to_text = Mapping::new(
            &ints,
            names.clone(),
            texts(&[default_text])?,
            Repeated::Last,
        )?;
        let to_int = Mapping::new(&names, ints, list(&[default_int])?, Repeated::Last)?;
        Ok(Self { to_text, to_int })
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        match inputs[0].0 {
            DatumType::String => self.to_int.facts(inputs),
            _ => self.to_text.facts(inputs),
        }
    }

    fn compute(&self, input: &Tensor) -> TractResult<Tensor> {
        match input.datum_type() {
            DatumType::String => self.to_int.compute(input),
            _ => self.to_text.compute(input),
        }
    }
}

/// Between the names of categories and their numbers.
#[derive(Debug)]
pub(super) struct CategoryMapper(TwoWay);

impl Kernel for CategoryMapper {
    const NAME: &'static str = "CategoryMapper";

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        let ints = attributes.ints("cats_int64s")?;
        let names = attributes.texts("cats_strings")?;
        Ok(Self(TwoWay::new(attributes, ints, &names)?))
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        self.0.facts(inputs)
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        Ok(tvec![self.0.compute(&inputs[0])?])
    }
}

/// From labels to others. In version 1 of the domain between names and their places.
#[derive(Debug)]
pub(super) struct LabelEncoder(Encoding);

#[derive(Debug)]
enum Encoding {
    Places(Box<TwoWay>),
    Mapping(Box<Mapping>),
}

/// The attribute of `kind` that is there, as a list: text, whole numbers, reals, or any as a tensor.
fn any(attributes: &Attributes<'_>, kind: &str) -> TractResult<Tensor> {
    let name = |suffix: &str| format!("{kind}_{suffix}");
    let found: Vec<&str> = ["strings", "int64s", "floats", "tensor"]
        .into_iter()
        .filter(|suffix| attributes.has(&name(suffix)))
        .collect();
    match found.as_slice() {
        ["strings"] => texts(&attributes.texts(&name("strings"))?),
        ["int64s"] => list(attributes.ints(&name("int64s"))?),
        ["floats"] => list(attributes.floats(&name("floats"))?),
        ["tensor"] => match attributes.tensor(&name("tensor"))? {
            Some(tensor) => {
                let count = tensor.len();
                tensor.into_shape(&[count])
            }
            None => bail!("attribute {:?} is empty", name("tensor")),
        },
        other => bail!("attributes {kind}_*: one is wanted, there are {other:?}"),
    }
}

/// What a key gets that is not in the list.
fn default(attributes: &Attributes<'_>, datum_type: DatumType) -> TractResult<Tensor> {
    if let Some(tensor) = attributes.tensor("default_tensor")? {
        ensure!(
            tensor.len() == 1 && tensor.datum_type() == datum_type,
            "\"default_tensor\" is not one element of type {datum_type:?}"
        );
        return tensor.into_shape(&[1]);
    }
    match datum_type {
        DatumType::String => texts(&[attributes.text("default_string", "_Unused")?]),
        DatumType::I64 => list(&[attributes.int("default_int64", -1)?]),
        DatumType::F32 => list(&[attributes.float("default_float", -0.0)?]),
        DatumType::F64 => list(&[-0.0_f64]),
        DatumType::I16 => list(&[-1_i16]),
        DatumType::I32 => list(&[-1_i32]),
        other => bail!("values cannot be of type {other:?}"),
    }
}

impl Kernel for LabelEncoder {
    const NAME: &'static str = "LabelEncoder";

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        if attributes.has("classes_strings") {
            let names = attributes.texts("classes_strings")?;
            let places: Vec<i64> = (0..).take(names.len()).collect();
            let both = TwoWay::new(attributes, &places, &names)?;
            return Ok(Self(Encoding::Places(Box::new(both))));
        }
        let (keys, values) = (any(attributes, "keys")?, any(attributes, "values")?);
        let default = default(attributes, values.datum_type())?;
        let mut mapping = Mapping::new(&keys, values, default, Repeated::First)?;
        if let (Index::Floats(index), ..4) = (&mut mapping.index, attributes.version()) {
            // Before version 4 what is not a number equals nothing, itself included.
            index.remove(&bits(f64::NAN));
        }
        Ok(Self(Encoding::Mapping(Box::new(mapping))))
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        match &self.0 {
            Encoding::Places(both) => both.facts(inputs),
            Encoding::Mapping(mapping) => mapping.facts(inputs),
        }
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let output = match &self.0 {
            Encoding::Places(both) => both.compute(&inputs[0])?,
            Encoding::Mapping(mapping) => mapping.compute(&inputs[0])?,
        };
        Ok(tvec![output])
    }
}

/// What is done with a value that is no category.
#[derive(Clone, Copy, Debug)]
enum Unknown {
    Zeros,
    Refused,
}

/// A one at the place of each value's category, zeros elsewhere.
#[derive(Debug)]
pub(super) struct OneHotEncoder {
    index: Index,
    categories: usize,
    unknown: Unknown,
}

impl Kernel for OneHotEncoder {
    const NAME: &'static str = "OneHotEncoder";

    fn read(attributes: &Attributes<'_>) -> TractResult<Self> {
        let ints = attributes.ints("cats_int64s")?;
        let names = attributes.texts("cats_strings")?;
        ensure!(
            ints.is_empty() != names.is_empty(),
            "one of \"cats_int64s\" and \"cats_strings\" must have categories"
        );
        let categories = if names.is_empty() {
            list(ints)?
        } else {
            texts(&names)?
        };
        let unknown = match attributes.int("zeros", 1)? {
            0 => Unknown::Refused,
            _ => Unknown::Zeros,
        };
        Ok(Self {
            index: Index::new(&categories, Repeated::Last)?,
            categories: categories.len(),
            unknown,
        })
    }

    fn facts(&self, inputs: &[Fact]) -> TractResult<TVec<Fact>> {
        let (datum_type, shape) = &inputs[0];
        let is_text = *datum_type == DatumType::String;
        match self.index {
            Index::Texts(_) => ensure!(is_text, "the categories are text, the input is not"),
            Index::Ints(_) | Index::Floats(_) => check_number(*datum_type)?,
        }
        let mut shape = shape.clone();
        shape.push(self.categories.into());
        Ok(tvec![(DatumType::F32, shape)])
    }

    fn compute(&self, inputs: &[TValue]) -> TractResult<TVec<Tensor>> {
        let input = &inputs[0];
        let mut shape: TVec<usize> = input.shape().into();
        shape.push(self.categories);
        let mut encoded = vec![0.0_f32; shape.iter().product()];
        let mut rows = encoded.chunks_exact_mut(self.categories).enumerate();
        let mut unknown = None;
        self.index
            .find(input, &mut |place| match (place, rows.next()) {
                (Some(place), Some((_, row))) => row[place] = 1.0,
                (None, Some((at, _))) => unknown = unknown.or(Some(at)),
                (_, None) => {}
            })?;
        match (unknown, self.unknown) {
            (Some(at), Unknown::Refused) => bail!("element {at} of the input is no category"),
            (None, Unknown::Refused) | (_, Unknown::Zeros) => {}
        }
        Ok(tvec![tensor(&shape, encoded)?])
    }
}

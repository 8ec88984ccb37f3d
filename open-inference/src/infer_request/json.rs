//! The JSON of an inference request, read without a tree.
//!
//! Objects are read by hand-written visitors where tensor data or a path for errors is at stake,
//! and by derived ones below that (`fields`). Each list is cut at its limit before it grows.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use tidegate_inference::{Dtype, Failure, FailureKind, Shape};

use super::fields::{Datatype, Extents, InputParameters, Name, OutputDraft, RequestParameters};
use super::{ID_BYTES_MAX, TENSORS_MAX};
use crate::data::DataSeed;
use crate::trail::Trail;

/// What the JSON says, before binary data is joined to it.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) id: Option<String>,
    pub(super) parameters: RequestParameters,
    pub(super) inputs: Vec<InputDraft>,
    pub(super) outputs: Vec<OutputDraft>,
}

#[derive(Debug)]
pub(super) struct InputDraft {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Shape,
    pub(super) binary_data_size: Option<usize>,
    pub(super) data: Data,
}

#[derive(Debug)]
pub(super) enum Data {
    Absent,
    Bytes(Vec<u8>),
}

/// Reads the request, in a second pass too where `data` came before what it is to be read as.
pub(super) fn read(json: &[u8]) -> Result<Draft, Failure> {
    let (draft, order) = read_once(json, &[])?;
    match order {
        Order::DataLast => Ok(draft),
        Order::DataFirst => {
            let types: Vec<_> = draft
                .inputs
                .into_iter()
                .map(|input| (input.dtype, input.shape))
                .collect();
            Ok(read_once(json, &types)?.0)
        }
    }
}

/// Whether all data could be read, or some came before its dtype and shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    DataLast,
    DataFirst,
}

fn read_once(json: &[u8], known: &[(Dtype, Shape)]) -> Result<(Draft, Order), Failure> {
    let trail = Trail::default();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let context = Context {
        known,
        json_len: json.len(),
        trail: &trail,
    };
    let read = context
        .deserialize(&mut reader)
        .and_then(|draft| reader.end().map(|()| draft));
    read.map_err(|error| {
        let message = match trail.into_path() {
            path if path.is_empty() => format!("the request is not valid: {error}"),
            path => format!("{path}: {error}"),
        };
        Failure::new(FailureKind::Invalid, message)
    })
}

#[derive(Clone, Copy)]
struct Context<'a> {
    /// Dtypes and shapes of the inputs, by position, from an earlier pass.
    known: &'a [(Dtype, Shape)],
    json_len: usize,
    trail: &'a Trail,
}

impl<'de> DeserializeSeed<'de> for Context<'_> {
    type Value = (Draft, Order);

    fn deserialize<D: Deserializer<'de>>(self, request: D) -> Result<Self::Value, D::Error> {
        request.deserialize_map(self)
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RequestField {
    Id,
    Parameters,
    Inputs,
    Outputs,
    #[serde(other)]
    Unknown,
}

impl<'de> Visitor<'de> for Context<'_> {
    type Value = (Draft, Order);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an inference request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let at = |name: &'static str| move |error| self.trail.outwards(name, error);
        let mut id = None;
        let mut parameters = None;
        let mut inputs = None;
        let mut outputs = None;
        let mut order = Order::DataLast;
        while let Some(field) = map.next_key()? {
            match field {
                RequestField::Id => {
                    let value: Option<String> = map.next_value().map_err(at("id"))?;
                    if value.as_ref().is_some_and(|id| id.len() > ID_BYTES_MAX) {
                        let message = format!("longer than {ID_BYTES_MAX} bytes");
                        return Err(at("id")(A::Error::custom(message)));
                    }
                    once(&mut id, value, "id")?;
                }
                RequestField::Parameters => {
                    let value: Option<RequestParameters> =
                        map.next_value().map_err(at("parameters"))?;
                    once(&mut parameters, value, "parameters")?;
                }
                RequestField::Inputs => {
                    let list = List {
                        trail: self.trail,
                        item: |index| InputSeed {
                            context: self,
                            known: self.known.get(index).cloned(),
                        },
                    };
                    let read = map.next_value_seed(list).map_err(at("inputs"))?;
                    let (drafts, orders): (Vec<_>, Vec<_>) = read.into_iter().unzip();
                    if orders.contains(&Order::DataFirst) {
                        order = Order::DataFirst;
                    }
                    once(&mut inputs, drafts, "inputs")?;
                }
                RequestField::Outputs => {
                    let list = List {
                        trail: self.trail,
                        item: |_| PhantomData::<OutputDraft>,
                    };
                    let value = map.next_value_seed(list).map_err(at("outputs"))?;
                    once(&mut outputs, value, "outputs")?;
                }
                RequestField::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let draft = Draft {
            id: id.flatten(),
            parameters: parameters.flatten().unwrap_or_default(),
            inputs: inputs.ok_or_else(|| A::Error::missing_field("inputs"))?,
            outputs: outputs.unwrap_or_default(),
        };
        Ok((draft, order))
    }
}

struct InputSeed<'a> {
    context: Context<'a>,
    known: Option<(Dtype, Shape)>,
}

impl<'de> DeserializeSeed<'de> for InputSeed<'_> {
    type Value = (InputDraft, Order);

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Self::Value, D::Error> {
        input.deserialize_map(self)
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum InputField {
    Name,
    Shape,
    Datatype,
    Parameters,
    Data,
    #[serde(other)]
    Unknown,
}

impl<'de> Visitor<'de> for InputSeed<'_> {
    type Value = (InputDraft, Order);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an input tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let trail = self.context.trail;
        let at = |name: &'static str| move |error| trail.outwards(name, error);
        let (mut name, mut parameters, mut data) = (None, None, None);
        let (mut dtype, mut shape) = (None, None);
        let mut order = Order::DataLast;
        while let Some(field) = map.next_key()? {
            match field {
                InputField::Name => {
                    let Name(value) = map.next_value().map_err(at("name"))?;
                    once(&mut name, value, "name")?;
                }
                InputField::Datatype => {
                    let Datatype(value) = map.next_value().map_err(at("datatype"))?;
                    once(&mut dtype, value, "datatype")?;
                }
                InputField::Shape => {
                    let Extents(value) = map.next_value().map_err(at("shape"))?;
                    once(&mut shape, value, "shape")?;
                }
                InputField::Parameters => {
                    let value: Option<InputParameters> =
                        map.next_value().map_err(at("parameters"))?;
                    once(&mut parameters, value, "parameters")?;
                }
                InputField::Data => {
                    let read_as = match &self.known {
                        Some((dtype, shape)) => Some((*dtype, shape)),
                        None => dtype.zip(shape.as_ref()),
                    };
                    let value = match read_as {
                        Some((dtype, shape)) => map
                            .next_value_seed(DataSeed {
                                dtype,
                                shape,
                                json_len: self.context.json_len,
                                trail,
                            })
                            .map_err(at("data"))?,
                        None => {
                            map.next_value::<IgnoredAny>().map_err(at("data"))?;
                            order = Order::DataFirst;
                            None
                        }
                    };
                    once(&mut data, value, "data")?;
                }
                InputField::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let parameters = parameters.flatten().unwrap_or_default();
        let draft = InputDraft {
            name: name.ok_or_else(|| A::Error::missing_field("name"))?,
            dtype: dtype.ok_or_else(|| A::Error::missing_field("datatype"))?,
            shape: shape.ok_or_else(|| A::Error::missing_field("shape"))?,
            binary_data_size: parameters.binary_data_size,
            data: data.flatten().map_or(Data::Absent, Data::Bytes),
        };
        Ok((draft, order))
    }
}

fn once<T, E: serde::de::Error>(
    slot: &mut Option<T>,
    value: T,
    name: &'static str,
) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(name)),
    }
}

/// A list of at most [`TENSORS_MAX`] items, or `null`; `item` makes the seed of each.
struct List<'a, F> {
    trail: &'a Trail,
    item: F,
}

impl<'de, S: DeserializeSeed<'de>, F: Fn(usize) -> S> DeserializeSeed<'de> for List<'_, F> {
    type Value = Vec<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, list: D) -> Result<Self::Value, D::Error> {
        list.deserialize_any(self)
    }
}

impl<'de, S: DeserializeSeed<'de>, F: Fn(usize) -> S> Visitor<'de> for List<'_, F> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of tensors")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) =
            array
                .next_element_seed((self.item)(items.len()))
                .map_err(|error| {
                    self.trail
                        .outwards(format_args!("[{}]", items.len()), error)
                })?
        {
            if items.len() == TENSORS_MAX {
                let message = format!("more than {TENSORS_MAX} tensors");
                return Err(A::Error::custom(message));
            }
            items.push(item);
        }
        Ok(items)
    }
}

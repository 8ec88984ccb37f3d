//! The small parts of an inference request: names, dtypes, shapes and parameters.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use tidegate_inference::{Dtype, NAME_BYTES_MAX, RANK_MAX, Shape};

#[derive(Debug, Default, Deserialize)]
pub(super) struct RequestParameters {
    pub(super) timeout: Option<u64>,
    pub(super) priority: Option<u64>,
    pub(super) binary_data_output: Option<bool>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OutputDraft {
    #[serde(deserialize_with = "name")]
    pub(super) name: String,
    pub(super) parameters: Option<OutputParameters>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OutputParameters {
    pub(super) binary_data: Option<bool>,
    #[serde(default, deserialize_with = "not_served")]
    #[expect(dead_code, reason = "its presence is refused while it is read")]
    classification: (),
    #[serde(default, deserialize_with = "not_served")]
    #[expect(dead_code, reason = "its presence is refused while it is read")]
    shared_memory_region: (),
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct InputParameters {
    pub(super) binary_data_size: Option<usize>,
    #[serde(default, deserialize_with = "not_served")]
    #[expect(dead_code, reason = "its presence is refused while it is read")]
    shared_memory_region: (),
}

#[derive(Deserialize)]
pub(super) struct Name(#[serde(deserialize_with = "name")] pub(super) String);

fn name<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    let name = String::deserialize(value)?;
    if name.len() > NAME_BYTES_MAX {
        let message = format!("a name has at most {NAME_BYTES_MAX} bytes");
        return Err(D::Error::custom(message));
    }
    Ok(name)
}

fn not_served<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    let message = "classification and shared memory are not served";
    Err(D::Error::custom(message))
}

pub(super) struct Datatype(pub(super) Dtype);

impl<'de> Deserialize<'de> for Datatype {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct DatatypeName;

        impl Visitor<'_> for DatatypeName {
            type Value = Datatype;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a datatype")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Datatype, E> {
                name.parse().map(Datatype).map_err(E::custom)
            }
        }
        value.deserialize_str(DatatypeName)
    }
}

pub(super) struct Extents(pub(super) Shape);

impl<'de> Deserialize<'de> for Extents {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Self, D::Error> {
        struct ExtentList;

        impl<'de> Visitor<'de> for ExtentList {
            type Value = Extents;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of extents")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Extents, A::Error> {
                let mut shape = Shape::new();
                while let Some(extent) = array.next_element()? {
                    if shape.len() == RANK_MAX {
                        let message = format!("a shape has at most {RANK_MAX} axes");
                        return Err(A::Error::custom(message));
                    }
                    shape.push(extent);
                }
                Ok(Extents(shape))
            }
        }
        value.deserialize_seq(ExtentList)
    }
}

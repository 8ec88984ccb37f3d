//! Reads a JSON array, flat or nested, into the bytes of a tensor in one pass.
//!
//! What a shape claims is never believed before the elements are there: memory is reserved for the
//! shape or for what the JSON text can hold, whichever is less.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use tidegate_inference::Dtype;

use super::NoJsonForm;
use super::element::{Bool, Element, Text};
use crate::trail::Trail;

/// Reads `data` as the bytes of a tensor of this dtype and shape. `null` is no data.
pub(crate) struct DataSeed<'a> {
    pub(crate) dtype: Dtype,
    pub(crate) shape: &'a [usize],
    /// Length of the whole JSON text, which bounds what is reserved for a shape that lies.
    pub(crate) json_len: usize,
    pub(crate) trail: &'a Trail,
}

impl<'de> DeserializeSeed<'de> for DataSeed<'_> {
    type Value = Option<Vec<u8>>;

    fn deserialize<D: Deserializer<'de>>(self, data: D) -> Result<Self::Value, D::Error> {
        match self.dtype {
            Dtype::Bool => self.read::<Bool, D>(data),
            Dtype::Uint8 => self.read::<u8, D>(data),
            Dtype::Uint16 => self.read::<u16, D>(data),
            Dtype::Uint32 => self.read::<u32, D>(data),
            Dtype::Uint64 => self.read::<u64, D>(data),
            Dtype::Int8 => self.read::<i8, D>(data),
            Dtype::Int16 => self.read::<i16, D>(data),
            Dtype::Int32 => self.read::<i32, D>(data),
            Dtype::Int64 => self.read::<i64, D>(data),
            Dtype::Fp32 => self.read::<f32, D>(data),
            Dtype::Fp64 => self.read::<f64, D>(data),
            Dtype::Bytes => self.read::<Text, D>(data),
            Dtype::Fp16 | Dtype::Bf16 => Err(D::Error::custom(NoJsonForm(self.dtype))),
        }
    }
}

impl DataSeed<'_> {
    fn read<'de, E: Element, D: Deserializer<'de>>(
        self,
        data: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        let elements = self
            .shape
            .iter()
            .try_fold(1_usize, |product, extent| product.checked_mul(*extent))
            .ok_or_else(|| D::Error::custom("the shape has more elements than can be addressed"))?;
        // An element takes at least two bytes of JSON, itself and a separator.
        let elements_max = elements.min(self.json_len / 2 + 1);
        let mut bytes = Vec::with_capacity(elements_max * E::SIZE);
        let present = data.deserialize_any(Level {
            shape: self.shape,
            elements,
            layout: (self.shape.len() <= 1).then_some(Layout::Scalars),
            bytes: &mut bytes,
            trail: self.trail,
            element: PhantomData::<E>,
        })?;
        Ok(present.then_some(bytes))
    }
}

/// What the items of an array are.
#[derive(Clone, Copy)]
enum Layout {
    Scalars,
    Rows,
}

/// One array, of all elements or of one axis. Visits to `true` if there was data.
struct Level<'a, E> {
    shape: &'a [usize],
    /// Product of `shape`.
    elements: usize,
    /// `None` at the top of a tensor with several axes, whose data is flat or nested.
    layout: Option<Layout>,
    bytes: &'a mut Vec<u8>,
    trail: &'a Trail,
    element: PhantomData<E>,
}

impl<'de, E: Element> Visitor<'de> for Level<'_, E> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of the tensor's elements")
    }

    fn visit_unit<Er>(self) -> Result<bool, Er> {
        Ok(false)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut array: A) -> Result<bool, A::Error> {
        let mut len = 0;
        while array
            .next_element_seed(Item(&mut self))
            .map_err(|error| self.trail.outwards(format_args!("[{len}]"), error))?
            .is_some()
        {
            len += 1;
            if len > self.wanted() {
                let wanted = self.wanted();
                let message = format!("expected {wanted} {}, got more", self.unit());
                return Err(A::Error::custom(message));
            }
        }
        if len != self.wanted() {
            let wanted = self.wanted();
            let message = format!("expected {wanted} {}, got {len}", self.unit());
            return Err(A::Error::custom(message));
        }
        Ok(true)
    }
}

impl<E> Level<'_, E> {
    fn wanted(&self) -> usize {
        match self.layout {
            Some(Layout::Rows) => self.shape[0],
            Some(Layout::Scalars) | None => self.elements,
        }
    }

    fn unit(&self) -> &'static str {
        match self.layout {
            Some(Layout::Rows) => "rows",
            Some(Layout::Scalars) | None => "elements",
        }
    }
}

/// One item of an array: an element, or the array of the next axis.
struct Item<'a, 'b, E>(&'a mut Level<'b, E>);

impl<'de, E: Element> DeserializeSeed<'de> for Item<'_, '_, E> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, item: D) -> Result<(), D::Error> {
        item.deserialize_any(self)
    }
}

impl<E: Element> Item<'_, '_, E> {
    fn put<Er: serde::de::Error>(
        self,
        value: impl fmt::Display,
        element: Option<E>,
    ) -> Result<(), Er> {
        let level = self.0;
        if let Layout::Rows = *level.layout.get_or_insert(Layout::Scalars) {
            return Err(Er::custom("expected an array, as the first row is one"));
        }
        element
            .ok_or_else(|| Er::custom(format_args!("{value} is not {}", E::WHAT)))?
            .put(level.bytes);
        Ok(())
    }
}

impl<'de, E: Element> Visitor<'de> for Item<'_, '_, E> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(E::WHAT)
    }

    fn visit_bool<Er: serde::de::Error>(self, value: bool) -> Result<(), Er> {
        self.put(value, E::from_bool(value))
    }

    fn visit_u64<Er: serde::de::Error>(self, value: u64) -> Result<(), Er> {
        self.put(value, E::from_u64(value))
    }

    fn visit_i64<Er: serde::de::Error>(self, value: i64) -> Result<(), Er> {
        self.put(value, E::from_i64(value))
    }

    fn visit_f64<Er: serde::de::Error>(self, value: f64) -> Result<(), Er> {
        self.put(value, E::from_f64(value))
    }

    fn visit_str<Er: serde::de::Error>(self, value: &str) -> Result<(), Er> {
        if let Layout::Rows = *self.0.layout.get_or_insert(Layout::Scalars) {
            return self.put("a string", None);
        }
        if E::put_str(value, self.0.bytes) {
            return Ok(());
        }
        self.put("a string", None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<(), A::Error> {
        let level = self.0;
        match *level.layout.get_or_insert(Layout::Rows) {
            Layout::Rows => {
                let inner = &level.shape[1..];
                let row = Level {
                    shape: inner,
                    elements: inner
                        .iter()
                        .fold(1, |product: usize, extent| product.saturating_mul(*extent)),
                    layout: Some(match inner.len() {
                        0 | 1 => Layout::Scalars,
                        _ => Layout::Rows,
                    }),
                    bytes: level.bytes,
                    trail: level.trail,
                    element: PhantomData::<E>,
                };
                row.visit_seq(array).map(drop)
            }
            Layout::Scalars => {
                let message = format!("expected {}, got an array", E::WHAT);
                Err(A::Error::custom(message))
            }
        }
    }
}

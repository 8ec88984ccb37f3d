//! The element types of tensors, and which JSON values stand for them.

use super::{INFINITY, NAN, NEGATIVE_INFINITY};

/// A tensor element, made from the JSON values that can stand for it.
pub(super) trait Element: Sized {
    /// Least bytes that one takes in a tensor.
    const SIZE: usize;
    /// How an error calls it.
    const WHAT: &'static str;

    fn from_bool(_: bool) -> Option<Self> {
        None
    }
    fn from_u64(_: u64) -> Option<Self> {
        None
    }
    fn from_i64(_: i64) -> Option<Self> {
        None
    }
    fn from_f64(_: f64) -> Option<Self> {
        None
    }
    /// Appends the element that `text` stands for, if it stands for one.
    fn put_str(_text: &str, _bytes: &mut Vec<u8>) -> bool {
        false
    }
    fn put(self, bytes: &mut Vec<u8>);
}

macro_rules! integer {
    ($($integer:ty: $what:literal),+ $(,)?) => {$(
        impl Element for $integer {
            const SIZE: usize = size_of::<Self>();
            const WHAT: &'static str = $what;

            fn from_u64(value: u64) -> Option<Self> {
                value.try_into().ok()
            }
            fn from_i64(value: i64) -> Option<Self> {
                value.try_into().ok()
            }
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
        }
    )+};
}

integer! {
    u8: "a UINT8", u16: "a UINT16", u32: "a UINT32", u64: "a UINT64",
    i8: "an INT8", i16: "an INT16", i32: "an INT32", i64: "an INT64",
}

macro_rules! float {
    ($($float:ty: $what:literal, $from_f64:expr;)+) => {$(
        impl Element for $float {
            const SIZE: usize = size_of::<Self>();
            const WHAT: &'static str = $what;

            fn from_u64(value: u64) -> Option<Self> {
                Some(value as Self)
            }
            fn from_i64(value: i64) -> Option<Self> {
                Some(value as Self)
            }
            fn from_f64(value: f64) -> Option<Self> {
                Some($from_f64(value)).filter(|value: &Self| value.is_finite())
            }
            fn put_str(text: &str, bytes: &mut Vec<u8>) -> bool {
                let value = match text {
                    NAN => Self::NAN,
                    INFINITY => Self::INFINITY,
                    NEGATIVE_INFINITY => Self::NEG_INFINITY,
                    _ => return false,
                };
                value.put(bytes);
                true
            }
            fn put(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
        }
    )+};
}

float! {
    f32: "an FP32", narrow;
    f64: "an FP64", std::convert::identity;
}

/// The nearest FP32, infinite past its range.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding is what is asked for"
)]
fn narrow(value: f64) -> f32 {
    value as f32
}

pub(super) struct Bool(bool);

impl Element for Bool {
    const SIZE: usize = 1;
    const WHAT: &'static str = "a BOOL";

    fn from_bool(value: bool) -> Option<Self> {
        Some(Self(value))
    }
    fn from_u64(value: u64) -> Option<Self> {
        (value <= 1).then_some(Self(value == 1))
    }
    fn put(self, bytes: &mut Vec<u8>) {
        bytes.push(self.0.into());
    }
}

/// A BYTES element, which goes from the JSON string straight to the tensor.
pub(super) enum Text {}

impl Element for Text {
    const SIZE: usize = 4;
    const WHAT: &'static str = "a string";

    fn put_str(text: &str, bytes: &mut Vec<u8>) -> bool {
        let Ok(len) = u32::try_from(text.len()) else {
            return false;
        };
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        true
    }
    fn put(self, _: &mut Vec<u8>) {
        match self {}
    }
}

//! How far one tensor is from another.

use std::fmt;

use tidegate_inference::{Dtype, Shape, Tensor, byte_elements};

use super::Tolerance;

/// Longest string or number that a difference shows.
const SHOWN_CHARS_MAX: usize = 64;

/// What differs between an output and its reference.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// Floats that agree.
    Within {
        /// The largest relative difference of an element; see [`compare`].
        relative_max: f64,
    },
    /// The same integers, booleans or strings.
    Same,
    /// Elements that do not agree.
    Elements {
        /// The largest relative difference of an element, infinite where NaN or an infinity meets
        /// anything else; `None` for integers, booleans and strings.
        relative_max: Option<f64>,
        /// How many elements do not agree.
        count: usize,
        /// Place of the worst in row-major order; of the first, if they are not floats.
        index: usize,
        /// The reference there.
        wanted: String,
        /// The output there.
        got: String,
    },
    /// Another dtype.
    Dtype {
        /// The output's.
        got: Dtype,
    },
    /// Another shape.
    Shape {
        /// The output's.
        got: Shape,
    },
    /// The model does not give the output.
    Missing,
}

impl Difference {
    /// Whether the output agrees.
    #[must_use]
    pub fn agrees(&self) -> bool {
        match self {
            Self::Within { .. } | Self::Same => true,
            Self::Elements { .. } | Self::Dtype { .. } | Self::Shape { .. } | Self::Missing => {
                false
            }
        }
    }

    /// The largest relative difference of an element, where the elements are floats.
    #[must_use]
    pub fn relative_max(&self) -> Option<f64> {
        match self {
            Self::Within { relative_max } => Some(*relative_max),
            Self::Elements { relative_max, .. } => *relative_max,
            Self::Same | Self::Dtype { .. } | Self::Shape { .. } | Self::Missing => None,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Within { relative_max } => {
                write!(f, "within the tolerance, at most {relative_max:.1e} away")
            }
            Self::Same => f.write_str("the same"),
            Self::Elements {
                count,
                index,
                wanted,
                got,
                ..
            } => write!(
                f,
                "{count} {}, such as {got} for {wanted} at {index}",
                if *count == 1 {
                    "element differs"
                } else {
                    "elements differ"
                }
            ),
            Self::Dtype { got } => write!(f, "it has datatype {got}"),
            Self::Shape { got } => write!(f, "it has shape {:?}", &got[..]),
            Self::Missing => f.write_str("it is missing"),
        }
    }
}

/// Compares an output with its reference.
///
/// The relative difference of a float is its difference from the reference, divided by the reference's
/// magnitude or by `absolute / relative` where that is larger (0.1 by default). So an element agrees
/// exactly if its relative difference is at most `relative`.
#[must_use]
pub fn compare(wanted: &Tensor, got: &Tensor, tolerance: Tolerance) -> Difference {
    if wanted.dtype() != got.dtype() {
        return Difference::Dtype { got: got.dtype() };
    }
    if wanted.shape() != got.shape() {
        let got = Shape::from_slice(got.shape());
        return Difference::Shape { got };
    }
    let (wanted_data, got_data) = (wanted.data(), got.data());
    match wanted.dtype() {
        Dtype::Fp16 => floats(
            pairs(wanted_data, got_data, |b| {
                half::f16::from_le_bytes(b).into()
            }),
            tolerance,
        ),
        Dtype::Bf16 => floats(
            pairs(wanted_data, got_data, |b| {
                half::bf16::from_le_bytes(b).into()
            }),
            tolerance,
        ),
        Dtype::Fp32 => floats(
            pairs(wanted_data, got_data, |b| f32::from_le_bytes(b).into()),
            tolerance,
        ),
        Dtype::Fp64 => floats(pairs(wanted_data, got_data, f64::from_le_bytes), tolerance),
        Dtype::Bool | Dtype::Uint8 => exact(pairs(wanted_data, got_data, u8::from_le_bytes)),
        Dtype::Uint16 => exact(pairs(wanted_data, got_data, u16::from_le_bytes)),
        Dtype::Uint32 => exact(pairs(wanted_data, got_data, u32::from_le_bytes)),
        Dtype::Uint64 => exact(pairs(wanted_data, got_data, u64::from_le_bytes)),
        Dtype::Int8 => exact(pairs(wanted_data, got_data, i8::from_le_bytes)),
        Dtype::Int16 => exact(pairs(wanted_data, got_data, i16::from_le_bytes)),
        Dtype::Int32 => exact(pairs(wanted_data, got_data, i32::from_le_bytes)),
        Dtype::Int64 => exact(pairs(wanted_data, got_data, i64::from_le_bytes)),
        Dtype::Bytes => {
            let text = |element: Option<&[u8]>| {
                String::from_utf8_lossy(element.unwrap_or_default()).into_owned()
            };
            let wanted = byte_elements(wanted_data).map(text);
            exact(wanted.zip(byte_elements(got_data).map(text)))
        }
    }
}

/// The elements of two tensors side by side.
fn pairs<'a, const N: usize, T>(
    wanted: &'a [u8],
    got: &'a [u8],
    read: impl Fn([u8; N]) -> T + 'a,
) -> impl Iterator<Item = (T, T)> + 'a {
    let both = wanted.as_chunks::<N>().0.iter().zip(got.as_chunks::<N>().0);
    both.map(move |(wanted, got)| (read(*wanted), read(*got)))
}

fn floats(pairs: impl Iterator<Item = (f64, f64)>, tolerance: Tolerance) -> Difference {
    let mut relative_max = 0_f64;
    let mut count = 0;
    let mut worst = (0, 0.0, 0.0);
    for (index, (wanted, got)) in pairs.enumerate() {
        let relative = relative_difference(wanted, got, tolerance);
        count += usize::from(relative > tolerance.relative);
        if relative > relative_max {
            relative_max = relative;
            worst = (index, wanted, got);
        }
    }
    if count == 0 {
        return Difference::Within { relative_max };
    }
    let (index, wanted, got) = worst;
    Difference::Elements {
        relative_max: Some(relative_max),
        count,
        index,
        wanted: wanted.to_string(),
        got: got.to_string(),
    }
}

/// At most `tolerance.relative` if and only if the two agree.
fn relative_difference(wanted: f64, got: f64, tolerance: Tolerance) -> f64 {
    let Tolerance { relative, absolute } = tolerance;
    let difference = (got - wanted).abs();
    if wanted == got || (wanted.is_nan() && got.is_nan()) {
        return 0.0;
    }
    if !difference.is_finite() {
        return f64::INFINITY;
    }
    let scale = if relative > 0.0 {
        wanted.abs().max(absolute / relative)
    } else {
        wanted.abs()
    };
    // Rounding in the division must not turn agreement into disagreement, or the reverse.
    if difference <= absolute || difference <= relative * wanted.abs() {
        (difference / scale).min(relative)
    } else {
        (difference / scale).max(relative.next_up())
    }
}

fn exact<T: PartialEq + fmt::Debug>(pairs: impl Iterator<Item = (T, T)>) -> Difference {
    let mut count = 0;
    let mut first = None;
    for (index, (wanted, got)) in pairs.enumerate() {
        if wanted != got {
            count += 1;
            first.get_or_insert((index, wanted, got));
        }
    }
    let Some((index, wanted, got)) = first else {
        return Difference::Same;
    };
    let shown = |value: T| format!("{value:?}").chars().take(SHOWN_CHARS_MAX).collect();
    Difference::Elements {
        relative_max: None,
        count,
        index,
        wanted: shown(wanted),
        got: shown(got),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor<const N: usize>(dtype: Dtype, elements: &[[u8; N]]) -> Tensor {
        let data = elements.concat();
        Tensor::new(dtype, Shape::from_slice(&[elements.len()]), data.into()).unwrap()
    }

    fn floats(values: &[f32]) -> Tensor {
        let elements: Vec<_> = values.iter().map(|value| value.to_le_bytes()).collect();
        tensor(Dtype::Fp32, &elements)
    }

    fn between(wanted: f32, got: f32) -> Difference {
        compare(
            &floats(&[1.0, wanted]),
            &floats(&[1.0, got]),
            Tolerance::default(),
        )
    }

    #[test]
    fn floats_agree_within_either_tolerance() {
        for (wanted, got, agrees) in [
            (1.0, 1.0009, true),
            (1.0, 1.0011, false),
            (-1000.0, -1000.9, true),
            (-1000.0, -1001.1, false),
            (0.0, 0.00009, true),
            (0.0, -0.00011, false),
            (0.01, 0.01009, true),
            (0.01, 0.01011, false),
            (0.0, -0.0, true),
            (f32::NAN, f32::NAN, true),
            (f32::NAN, 1.0, false),
            (1.0, f32::NAN, false),
            (f32::INFINITY, f32::INFINITY, true),
            (f32::INFINITY, f32::NEG_INFINITY, false),
            (f32::INFINITY, f32::MAX, false),
            (f32::MAX, f32::INFINITY, false),
        ] {
            let difference = between(wanted, got);
            assert_eq!(
                difference.agrees(),
                agrees,
                "{wanted} {got}: {difference:?}"
            );
            let relative = difference.relative_max().unwrap();
            assert_eq!(relative <= 1e-3, agrees, "{wanted} {got}: {relative}");
        }
    }

    #[test]
    fn the_worst_element_is_shown() {
        let wanted = floats(&[1.0, 2.0, 4.0]);
        let got = floats(&[1.1, 3.0, 5.0]);
        let difference = compare(&wanted, &got, Tolerance::default());
        let Difference::Elements {
            relative_max,
            count,
            index,
            ..
        } = difference
        else {
            panic!("{difference:?}");
        };
        assert_eq!((relative_max, count, index), (Some(0.5), 3, 1));
        assert_eq!(
            difference.to_string(),
            "3 elements differ, such as 3 for 2 at 1"
        );
    }

    #[test]
    fn without_a_tolerance_only_the_same_agrees() {
        let none = Tolerance {
            relative: 0.0,
            absolute: 0.0,
        };
        let absolute = Tolerance {
            absolute: 0.5,
            ..none
        };
        let (one, two) = (floats(&[1.0]), floats(&[1.25]));
        assert!(compare(&one, &one, none).agrees());
        assert!(!compare(&one, &two, none).agrees());
        assert!(compare(&one, &two, absolute).agrees());
    }

    #[test]
    fn half_floats_are_compared_by_value() {
        let half = |value: f32| tensor(Dtype::Fp16, &[half::f16::from_f32(value).to_le_bytes()]);
        assert!(compare(&half(1.0), &half(1.0), Tolerance::default()).agrees());
        assert!(!compare(&half(1.0), &half(1.01), Tolerance::default()).agrees());
        let brain = |value: f32| tensor(Dtype::Bf16, &[half::bf16::from_f32(value).to_le_bytes()]);
        assert!(!compare(&brain(1.0), &brain(2.0), Tolerance::default()).agrees());
    }

    #[test]
    fn integers_booleans_and_strings_must_be_the_same() {
        let integers = |value: i64| tensor(Dtype::Int64, &[value.to_le_bytes()]);
        let check = |wanted: &Tensor, got: &Tensor, words: &str| {
            let difference = compare(wanted, got, Tolerance::default());
            assert_eq!(
                compare(wanted, wanted, Tolerance::default()),
                Difference::Same
            );
            assert!(difference.to_string().contains(words), "{difference}");
        };
        check(
            &integers(1 << 62),
            &integers((1 << 62) + 1),
            "4611686018427387905 for 4611686018427387904",
        );
        check(
            &tensor(Dtype::Bool, &[[0], [1]]),
            &tensor(Dtype::Bool, &[[0], [0]]),
            "0 for 1 at 1",
        );
        let text = |values: &[&str]| Tensor::from_byte_elements(values);
        check(
            &text(&["cat", "dog"]),
            &text(&["cat", "dot"]),
            "\"dot\" for \"dog\" at 1",
        );
    }

    #[test]
    fn dtype_and_shape_must_be_the_same() {
        let (one, two) = (floats(&[1.0]), floats(&[1.0, 1.0]));
        let difference = compare(&one, &two, Tolerance::default());
        assert_eq!(difference.to_string(), "it has shape [2]");
        let double = tensor(Dtype::Fp64, &[1_f64.to_le_bytes()]);
        let difference = compare(&one, &double, Tolerance::default());
        assert_eq!(difference.to_string(), "it has datatype FP64");
    }
}

//! Whether an output is the wanted one: integers, booleans and strings exactly, floats nearly.

use tidegate_inference::{Dtype, Tensor, byte_elements};

/// How near a float must be: within `relative` of the wanted value, or within `of_largest` of the largest
/// wanted value of the tensor, since a sum of large numbers that comes out small keeps their error.
struct Tolerance {
    relative: f64,
    of_largest: f64,
}

/// What counts as the largest value of a tensor of smaller ones.
const LARGEST_MIN: f64 = 1e-2;

/// What differs first, if anything does.
pub(crate) fn compare(got: &Tensor, wanted: &Tensor) -> Option<String> {
    if got.dtype() != wanted.dtype() || got.shape() != wanted.shape() {
        return Some(format!("is {got:?}, not {wanted:?}"));
    }
    // Results of half precision differ in the last place when sums are taken in another order.
    let tolerance = match wanted.dtype() {
        Dtype::Fp32 | Dtype::Fp64 => Tolerance {
            relative: 1e-3,
            of_largest: 4e-6,
        },
        Dtype::Fp16 => Tolerance {
            relative: 4e-3,
            of_largest: 1e-3,
        },
        Dtype::Bf16 => Tolerance {
            relative: 2e-2,
            of_largest: 8e-3,
        },
        _ => return exactly(got, wanted),
    };
    let (got, wanted) = (floats(got), floats(wanted));
    let largest = wanted
        .iter()
        .filter(|value| value.is_finite())
        .fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let absolute = tolerance.of_largest * largest.max(LARGEST_MIN);
    got.iter()
        .zip(&wanted)
        .position(|(got, wanted)| {
            let same = got == wanted || (got.is_nan() && wanted.is_nan());
            let near = (got - wanted).abs() <= absolute + tolerance.relative * wanted.abs();
            !(same || (near && wanted.is_finite()))
        })
        .map(|at| format!("element {at} is {}, not {}", got[at], wanted[at]))
}

fn exactly(got: &Tensor, wanted: &Tensor) -> Option<String> {
    if got.dtype() == Dtype::Bytes {
        let differs = byte_elements(got.data())
            .zip(byte_elements(wanted.data()))
            .find(|(got, wanted)| got != wanted)?;
        return Some(format!("a string is {:?}, not {:?}", differs.0, differs.1));
    }
    let size = got.dtype().size()?;
    let elements = got.data().chunks(size).zip(wanted.data().chunks(size));
    let (at, (got, wanted)) = elements
        .enumerate()
        .find(|(_, (got, wanted))| got != wanted)?;
    Some(format!(
        "element {at} has the bytes {got:02x?}, not {wanted:02x?}"
    ))
}

fn floats(tensor: &Tensor) -> Vec<f64> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::Fp16 => {
            let (chunks, _) = data.as_chunks::<2>();
            let value = |chunk: &[u8; 2]| half::f16::from_le_bytes(*chunk).to_f64();
            chunks.iter().map(value).collect()
        }
        Dtype::Bf16 => {
            let (chunks, _) = data.as_chunks::<2>();
            let value = |chunk: &[u8; 2]| half::bf16::from_le_bytes(*chunk).to_f64();
            chunks.iter().map(value).collect()
        }
        Dtype::Fp32 => {
            let (chunks, _) = data.as_chunks::<4>();
            let value = |chunk: &[u8; 4]| f64::from(f32::from_le_bytes(*chunk));
            chunks.iter().map(value).collect()
        }
        _ => {
            let (chunks, _) = data.as_chunks::<8>();
            let value = |chunk: &[u8; 8]| f64::from_le_bytes(*chunk);
            chunks.iter().map(value).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn single(values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Tensor::new(
            Dtype::Fp32,
            [values.len()].into_iter().collect(),
            bytes.into(),
        )
        .unwrap()
    }

    #[test]
    fn only_what_is_near_is_the_same() {
        let check = |got: f32, wanted: f32, same: bool| {
            let difference = compare(&single(&[got]), &single(&[wanted]));
            assert_eq!(difference.is_none(), same, "{got} {wanted}");
        };
        check(1.0, 1.0, true);
        check(1.000_9, 1.0, true);
        check(1.002, 1.0, false);
        check(0.0, 1e-5, false);
        check(f32::NAN, f32::NAN, true);
        check(f32::NAN, 1.0, false);
        check(1.0, f32::NAN, false);
        check(f32::INFINITY, f32::INFINITY, true);
        check(f32::INFINITY, f32::NEG_INFINITY, false);
        check(1e30, f32::INFINITY, false);
        check(f32::INFINITY, 1e30, false);
        let pair = compare(&single(&[1.0, 2.0]), &single(&[1.0, 3.0]));
        assert!(pair.unwrap().contains("element 1"));
        assert!(compare(&single(&[1.0]), &single(&[1.0, 1.0])).is_some());
    }

    #[test]
    fn integers_and_strings_are_exact() {
        let number =
            |value: u8| Tensor::new(Dtype::Uint8, [1].into_iter().collect(), vec![value].into());
        assert_eq!(compare(&number(7).unwrap(), &number(7).unwrap()), None);
        assert!(compare(&number(7).unwrap(), &number(8).unwrap()).is_some());
        let text = |text: &str| Tensor::from_byte_elements(&[text]);
        assert_eq!(compare(&text("a"), &text("a")), None);
        assert!(compare(&text("a"), &text("b")).is_some());
    }
}

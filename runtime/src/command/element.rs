//! Element types of `wasi_ephemeral_nn`, whose numbers changed over the years.
//!
//! The first revisions (and the crate `wasi-nn` up to 0.5) count F16, F32, U8, I32. Later ones (`wasi-nn`
//! 0.6, `wasmedge-wasi-nn`, wasmtime) count F16, F32, F64, U8, I32, I64, and bindings made of the WIT
//! interface put BF16 behind F64. A number alone is therefore ambiguous, but not beside the length of
//! the data: no number stands for two types of the same size.

use tidegate_inference::Dtype;

/// The types that a number has stood for, the latest revision's first.
fn candidates(tag: u8) -> &'static [Dtype] {
    match tag {
        0 => &[Dtype::Fp16],
        1 => &[Dtype::Fp32],
        2 => &[Dtype::Fp64, Dtype::Uint8],
        3 => &[Dtype::Uint8, Dtype::Int32, Dtype::Bf16],
        4 => &[Dtype::Int32, Dtype::Uint8],
        5 => &[Dtype::Int64, Dtype::Int32],
        6 => &[Dtype::Int64],
        _ => &[],
    }
}

/// The type of `elements` elements that take `bytes` bytes, for a graph that wants `wanted`.
///
/// The interface has no names for other integers and for booleans: where the graph wants one of the
/// same size as an integer that the guest says, the bytes are taken as what the graph wants.
pub(super) fn dtype(
    tag: u8,
    elements: usize,
    bytes: usize,
    wanted: Dtype,
) -> Result<Dtype, String> {
    let candidates = candidates(tag);
    let fits = |dtype: &Dtype| {
        let size = dtype.size().unwrap_or(0);
        elements.checked_mul(size) == Some(bytes)
    };
    let fitting = || candidates.iter().copied().filter(fits);
    // Where there are no elements every type fits; the one that is wanted then does.
    let said = fitting()
        .find(|dtype| *dtype == wanted)
        .or_else(|| fitting().next());
    match said {
        Some(said) if is_integer(said) && is_integer(wanted) && said.size() == wanted.size() => {
            Ok(wanted)
        }
        Some(said) => Ok(said),
        None if candidates.is_empty() => Err(format!("there is no element type {tag}")),
        None => Err(format!(
            "{elements} elements of type {tag} ({}) do not take {bytes} bytes",
            candidates
                .iter()
                .map(|dtype| dtype.name())
                .collect::<Vec<_>>()
                .join(" or ")
        )),
    }
}

fn is_integer(dtype: Dtype) -> bool {
    match dtype {
        Dtype::Bool
        | Dtype::Uint8
        | Dtype::Uint16
        | Dtype::Uint32
        | Dtype::Uint64
        | Dtype::Int8
        | Dtype::Int16
        | Dtype::Int32
        | Dtype::Int64 => true,
        Dtype::Fp16 | Dtype::Bf16 | Dtype::Fp32 | Dtype::Fp64 | Dtype::Bytes => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_stands_for_two_types_of_one_size() {
        for tag in 0..=u8::MAX {
            let mut sizes: Vec<_> = candidates(tag).iter().map(|dtype| dtype.size()).collect();
            let len = sizes.len();
            sizes.sort_unstable();
            sizes.dedup();
            assert_eq!(sizes.len(), len, "{tag}");
        }
    }

    #[track_caller]
    fn check(tag: u8, bytes: usize, wanted: Dtype, said: Dtype) {
        assert_eq!(dtype(tag, 6, bytes, wanted), Ok(said));
    }

    #[test]
    fn every_revision_s_numbers_are_told_apart_by_the_data() {
        use Dtype::{Bf16, Bool, Fp16, Fp32, Fp64, Int8, Int32, Int64, Uint8, Uint32, Uint64};
        check(0, 12, Fp16, Fp16);
        check(1, 24, Fp32, Fp32);
        for (tag, bytes, dtype) in [(2, 6, Uint8), (3, 24, Int32)] {
            check(tag, bytes, dtype, dtype);
        }
        for (tag, bytes, dtype) in [(2, 48, Fp64), (3, 6, Uint8), (4, 24, Int32), (5, 48, Int64)] {
            check(tag, bytes, dtype, dtype);
        }
        for (tag, bytes, dtype) in [(3, 12, Bf16), (4, 6, Uint8), (5, 24, Int32), (6, 48, Int64)] {
            check(tag, bytes, dtype, dtype);
        }
        check(3, 6, Bool, Bool);
        check(2, 6, Int8, Int8);
        check(4, 24, Uint32, Uint32);
        check(5, 48, Uint64, Uint64);
        // The graph's wish changes no float into an integer, nor the other way.
        check(1, 24, Int32, Fp32);
        check(4, 24, Fp32, Int32);
        check(2, 48, Int64, Fp64);
    }

    #[test]
    fn data_of_another_length_fits_no_revision() {
        for (tag, bytes) in [
            (0, 24),
            (1, 12),
            (2, 24),
            (3, 48),
            (4, 12),
            (5, 6),
            (6, 24),
            (7, 6),
            (255, 6),
        ] {
            assert!(dtype(tag, 6, bytes, Dtype::Fp32).is_err(), "{tag} {bytes}");
        }
        assert!(dtype(1, usize::MAX, 4, Dtype::Fp32).is_err());
        assert_eq!(dtype(3, 0, 0, Dtype::Int32), Ok(Dtype::Int32));
        assert_eq!(dtype(3, 0, 0, Dtype::Fp32), Ok(Dtype::Uint8));
    }
}

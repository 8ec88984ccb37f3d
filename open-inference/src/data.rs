//! Turns the JSON `data` of a tensor into its bytes, and back, without a tree in between.
//!
//! `data` is flat, or nested exactly as the shape says; the first element tells which. Integers
//! must be in range of their dtype, BOOL takes `true`, `false`, 1 and 0, BYTES takes strings. JSON
//! has no NaN and no infinities: `"NaN"`, `"Infinity"` and `"-Infinity"` stand for them in both
//! directions, as in the JSON mapping of protocol buffers. FP16 and BF16 have no JSON form in the
//! protocol and travel in binary only.

mod element;
mod read;
mod write;

use std::fmt;

use tidegate_inference::Dtype;

pub(crate) use read::DataSeed;
pub(crate) use write::JsonData;

/// Says that a dtype cannot be written in JSON, and what to do instead.
struct NoJsonForm(Dtype);

impl fmt::Display for NoJsonForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} has no JSON form: use the binary tensor extension",
            self.0
        )
    }
}

const NAN: &str = "NaN";
const INFINITY: &str = "Infinity";
const NEGATIVE_INFINITY: &str = "-Infinity";

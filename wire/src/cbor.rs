//! Deterministic CBOR, written and strictly read.
//!
//! Core deterministic encoding of RFC 8949, section 4.2.1: definite lengths, every number and
//! length in its shortest form, map keys in ascending order of their encoded bytes. Keys are
//! integers; this version's are 0 and up, in order and all mandatory unless said otherwise.
//! Negative keys sort behind them, so an extension is always at the end of its map, where a reader
//! that does not know it steps over it. There are no floats and no tags.

pub(crate) use reader::Reader;
pub(crate) use writer::{Writer, cut, micros, milli};

mod reader;
mod writer;

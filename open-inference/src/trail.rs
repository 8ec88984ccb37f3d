//! Says where in a JSON document the parser was when it failed, as in `inputs[0].data[3]`.
//!
//! serde's errors carry a line and a column, which help nobody whose client wrote the JSON. Each
//! level of the parser adds its own step while the error passes outwards, so that a document without
//! fault pays nothing.

use std::cell::RefCell;
use std::fmt;

/// The path to a failure, built from the inside out.
#[derive(Debug, Default)]
pub(crate) struct Trail(RefCell<String>);

impl Trail {
    /// Notes that the failure was inside `step` and gives it back.
    pub(crate) fn outwards<E>(&self, step: impl fmt::Display, error: E) -> E {
        let mut path = self.0.borrow_mut();
        let dot = match path.chars().next() {
            None | Some('[') => "",
            Some(_) => ".",
        };
        *path = format!("{step}{dot}{path}");
        error
    }

    pub(crate) fn into_path(self) -> String {
        self.0.into_inner()
    }
}

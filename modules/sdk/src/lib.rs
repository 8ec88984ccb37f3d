//! Write a Tidegate model module in Rust.
//!
//! A model module is a WebAssembly guest around one or more ONNX graphs: it pre-processes the
//! inputs of a request, has the host run a graph, and post-processes the outputs. A guest is a type
//! that implements [`Module`], and one [`export!`] line:
//!
//! ```
//! use tidegate_module_sdk::{Graph, Inputs, Module, Outputs, Result, make, read};
//!
//! /// Doubles every element before the graph sees it.
//! struct Doubler;
//!
//! impl Module for Doubler {
//!     fn infer(mut inputs: Inputs) -> Result<Outputs> {
//!         let x = inputs.take("x")?;
//!         let doubled: Vec<f32> = read::<f32>(&x)?.iter().map(|value| value * 2.0).collect();
//!         let mut outputs = Graph::load("model")?.run([("x", make(&[doubled.len()], &doubled)?)])?;
//!         Ok(Outputs::new().with("y", outputs.take("y")?))
//!     }
//! }
//!
//! tidegate_module_sdk::export!(Doubler);
//! # fn main() {}
//! ```
//!
//! Build it as a `cdylib` for `wasm32-unknown-unknown` and give it to
//! `tidegate pack model.onnx --guest guest.wasm --manifest manifest.json -o module.wasm`.
//!
//! Tensors live in the host. Passing one on (an input to a graph, an output to the caller) copies
//! nothing; [`read`] and [`make`] copy once. The host has checked the inputs against the manifest
//! before [`Module::infer`] runs, so `take` of a declared name and `read` of its declared type only
//! fail where guest and manifest disagree.
//!
//! A request runs in a fresh instance under a memory limit and a deadline: a guest keeps no state,
//! and frees nothing by hand. A panic ends the request as the module's fault; an `Err` ends it as
//! the caller's, with the error's text.

mod element;
mod graph;
mod named;

pub use element::{Dtype, Element, dtype, make, make_strings, read, read_bytes, strings};
pub use graph::Graph;
pub use named::{Inputs, Outputs};

/// The world's imports and exports, as `wit-bindgen` makes them.
#[doc(hidden)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "tidegate:model/module",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_world",
        default_bindings_module: "tidegate_module_sdk::bindings",
        runtime_path: "wit_bindgen::rt",
    });
}

/// A tensor in the host, with its elements, dtype and shape. Dropping it frees it there.
pub use bindings::wasi::nn::tensor::Tensor;

/// What can go wrong in a guest: a sentence for the caller.
pub type Error = String;

/// The result of a guest's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A model module's guest. [`export!`] makes it the one of this library.
pub trait Module {
    /// Answers one request: all declared inputs in, all declared outputs back, in any order.
    ///
    /// The error text goes to the caller and says what is wrong with the input.
    fn infer(inputs: Inputs) -> Result<Outputs>;
}

/// Exports a type that implements [`Module`] as this library's guest.
#[macro_export]
macro_rules! export {
    ($module:ty) => {
        const _: () = {
            struct Exported;

            impl $crate::bindings::Guest for Exported {
                fn infer(
                    inputs: ::std::vec::Vec<$crate::bindings::NamedTensor>,
                ) -> ::std::result::Result<
                    ::std::vec::Vec<$crate::bindings::NamedTensor>,
                    ::std::string::String,
                > {
                    <$module as $crate::Module>::infer($crate::Inputs::from(inputs))
                        .map(::std::convert::Into::into)
                }
            }

    $crate::bindings::export_world!(Exported with_types_in $crate::bindings);
        };
    };
}

//! Calls one function of a library with parameters from the command line.

use wasmtime::{Func, Instance, Store, Val, ValType};

use super::guest::Guest;
use super::{CommandError, Options};

/// Why a function cannot be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvokeError {
    /// No export of this name is a function.
    #[error("the program exports no such function")]
    Missing,
    /// Functions of components take more than numbers.
    #[error("only functions of core modules can be called, and this is a component")]
    Component,
    /// Too many or too few arguments.
    #[error("it takes {wanted} parameters, got {got}")]
    Count {
        /// Parameters that it has.
        wanted: usize,
        /// Arguments given.
        got: usize,
    },
    /// An argument does not parse as its parameter's type.
    #[error("parameter {index} is {wanted}, not {got:?}")]
    Value {
        /// Its position, from 1.
        index: usize,
        /// Its type.
        wanted: String,
        /// What was given.
        got: String,
    },
}

/// A function with the parameters that it will be called with.
pub(super) struct Function {
    function: Func,
    parameters: Vec<Val>,
    results: usize,
}

impl Function {
    /// Finds a function and reads its parameters.
    pub(super) fn find(
        store: &mut Store<Guest>,
        instance: &Instance,
        name: &str,
        options: &Options,
    ) -> Result<Self, CommandError> {
        let refuse = |source| CommandError::Invoke {
            function: name.to_owned(),
            source,
        };
        let function = instance
            .get_func(&mut *store, name)
            .ok_or_else(|| refuse(InvokeError::Missing))?;
        let kind = function.ty(&*store);
        let (wanted, got) = (kind.params().len(), options.arguments.len());
        if wanted != got {
            return Err(refuse(InvokeError::Count { wanted, got }));
        }
        let parameters = kind
            .params()
            .zip(&options.arguments)
            .enumerate()
            .map(|(at, (kind, text))| {
                parse(&kind, text).ok_or_else(|| InvokeError::Value {
                    index: at + 1,
                    wanted: kind.to_string(),
                    got: text.clone(),
                })
            })
            .collect::<Result<_, _>>()
            .map_err(refuse)?;
        Ok(Self {
            function,
            parameters,
            results: kind.results().len(),
        })
    }

    /// Calls it, and gives its results as text.
    pub(super) async fn call(&self, store: &mut Store<Guest>) -> wasmtime::Result<Vec<String>> {
        let mut results = vec![Val::I32(0); self.results];
        self.function
            .call_async(store, &self.parameters, &mut results)
            .await?;
        Ok(results.iter().map(print).collect())
    }
}

/// A value of this type; integers may be written with or without a sign.
fn parse(kind: &ValType, text: &str) -> Option<Val> {
    match kind {
        ValType::I32 => {
            let unsigned = || text.parse::<u32>().ok().map(u32::cast_signed);
            text.parse().ok().or_else(unsigned).map(Val::I32)
        }
        ValType::I64 => {
            let unsigned = || text.parse::<u64>().ok().map(u64::cast_signed);
            text.parse().ok().or_else(unsigned).map(Val::I64)
        }
        ValType::F32 => text
            .parse()
            .ok()
            .map(|value: f32| Val::F32(value.to_bits())),
        ValType::F64 => text
            .parse()
            .ok()
            .map(|value: f64| Val::F64(value.to_bits())),
        ValType::V128 | ValType::Ref(_) => None,
    }
}

fn print(value: &Val) -> String {
    match value {
        Val::I32(value) => value.to_string(),
        Val::I64(value) => value.to_string(),
        Val::F32(bits) => f32::from_bits(*bits).to_string(),
        Val::F64(bits) => f64::from_bits(*bits).to_string(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(kind: &ValType, text: &str, printed: Option<&str>) {
        let value = parse(kind, text);
        assert_eq!(value.as_ref().map(print).as_deref(), printed, "{text}");
    }

    #[test]
    fn numbers_are_read_and_written_as_their_types_have_them() {
        check(&ValType::I32, "-1", Some("-1"));
        check(&ValType::I32, "4294967295", Some("-1"));
        check(&ValType::I32, "4294967296", None);
        check(
            &ValType::I64,
            "-9223372036854775808",
            Some("-9223372036854775808"),
        );
        check(&ValType::I64, "1.5", None);
        check(&ValType::F32, "1.5", Some("1.5"));
        check(&ValType::F64, "x", None);
        check(&ValType::V128, "1", None);
    }
}

//! `wasi_ephemeral_nn`: graphs for core modules, as the witx files of wasi-nn and WasmEdge have it.
//!
//! Every function answers with an error number and never traps, whatever the guest passes: each place
//! in its memory is checked before anything else happens, handles are of the kind that the call wants
//! or refused, and tensors, graphs and contexts count against the limits of the sandbox. What a number
//! cannot say goes to the log. Only the end of the guest's time stops it.

mod handles;

use wasmtime::{Caller, Extern, Linker};

use self::handles::{brought, finalize, init_context, keep, output, run, set_input, unload};
use super::guest::Guest;
use super::memory::{BadPlace, Memory};
use crate::sandbox::{ErrorCode, HostError, Refusal, Sandbox, by_name};

const MODULE: &str = "wasi_ephemeral_nn";

/// Longest name of a graph, and longest configuration, that is looked at.
const TEXT_BYTES_MAX: u32 = 64 << 10;

/// `nn_errno`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Errno {
    Success = 0,
    InvalidArgument = 1,
    InvalidEncoding = 2,
    MissingMemory = 3,
    RuntimeError = 5,
    UnsupportedOperation = 6,
    TooLarge = 7,
    NotFound = 8,
}

impl From<ErrorCode> for Errno {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::InvalidArgument => Self::InvalidArgument,
            ErrorCode::InvalidEncoding => Self::InvalidEncoding,
            ErrorCode::UnsupportedOperation | ErrorCode::Security => Self::UnsupportedOperation,
            ErrorCode::TooLarge => Self::TooLarge,
            ErrorCode::NotFound => Self::NotFound,
            ErrorCode::Timeout | ErrorCode::RuntimeError | ErrorCode::Unknown => Self::RuntimeError,
        }
    }
}

/// How a call fails.
enum Fault {
    /// The guest gets the number, the log the text.
    Answer(Errno, String),
    /// The guest's time is over.
    End(wasmtime::Error),
}

impl From<BadPlace> for Fault {
    fn from(place: BadPlace) -> Self {
        Self::Answer(Errno::InvalidArgument, place.to_string())
    }
}

impl From<HostError> for Fault {
    fn from(error: HostError) -> Self {
        Self::Answer(error.code.into(), error.message)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        HostError::from(refusal).into()
    }
}

fn invalid(message: impl Into<String>) -> Fault {
    Fault::Answer(Errno::InvalidArgument, message.into())
}

type Done = Result<(), Fault>;

pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    graphs(linker)?;
    runs(linker)?;
    ends(linker)
}

/// What makes graphs and contexts.
fn graphs(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(
        MODULE,
        "load",
        |mut caller: Caller<'_, Guest>, at: u32, len: u32, encoding: u32, target: u32, out: u32| {
            call(&mut caller, "load", |memory, sandbox| {
                memory.check_number(out)?;
                let graph = brought(memory, sandbox, (at, len), encoding, target)?;
                keep(memory, sandbox, graph, out)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "load_by_name",
        |mut caller: Caller<'_, Guest>, at: u32, len: u32, out: u32| {
            call(&mut caller, "load_by_name", |memory, sandbox| {
                memory.check_number(out)?;
                let graph = by_name(&sandbox.terms, text(memory, at, len)?)?;
                keep(memory, sandbox, graph, out)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "load_by_name_with_config",
        |mut caller: Caller<'_, Guest>,
         at: u32,
         len: u32,
         config: u32,
         config_len: u32,
         out: u32| {
            call(
                &mut caller,
                "load_by_name_with_config",
                |memory, sandbox| {
                    memory.check_number(out)?;
                    // Configurations are for engines of other formats: an ONNX graph has none.
                    text(memory, config, config_len)?;
                    let graph = by_name(&sandbox.terms, text(memory, at, len)?)?;
                    keep(memory, sandbox, graph, out)
                },
            )
        },
    )?;
    linker.func_wrap(
        MODULE,
        "init_execution_context",
        |mut caller: Caller<'_, Guest>, graph: u32, out: u32| {
            call(&mut caller, "init_execution_context", |memory, sandbox| {
                memory.check_number(out)?;
                let context = init_context(sandbox, graph)?;
                Ok(memory.put_number(out, context)?)
            })
        },
    )?;
    Ok(())
}

/// What runs a context.
fn runs(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(
        MODULE,
        "set_input",
        |mut caller: Caller<'_, Guest>, context: u32, index: u32, tensor: u32| {
            call(&mut caller, "set_input", |memory, sandbox| {
                set_input(memory, sandbox, context, index, tensor)
            })
        },
    )?;
    linker.func_wrap(
        MODULE,
        "compute",
        |mut caller: Caller<'_, Guest>, context: u32| {
            call(&mut caller, "compute", |_, sandbox| run(sandbox, context))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "get_output",
        |mut caller: Caller<'_, Guest>, context: u32, index: u32, at: u32, len: u32, out: u32| {
            call(&mut caller, "get_output", |memory, sandbox| {
                memory.check_number(out)?;
                let buffer = memory.bytes_mut(at, len)?;
                let output = output(sandbox, context, index)?;
                let wanted = output.len();
                if let Some(start) = buffer.get_mut(..wanted) {
                    start.copy_from_slice(&output);
                }
                let size = u32::try_from(wanted).unwrap_or(u32::MAX);
                memory.put_number(out, size)?;
                if wanted > len as usize {
                    let message = format!("the output has {wanted} bytes, the buffer {len}");
                    return Err(Fault::Answer(Errno::TooLarge, message));
                }
                Ok(())
            })
        },
    )?;
    Ok(())
}

/// What WasmEdge adds: the ends of handles, and runs token by token, which no ONNX graph has.
fn ends(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.func_wrap(
        MODULE,
        "unload",
        |mut caller: Caller<'_, Guest>, graph: u32| {
            call(&mut caller, "unload", |_, sandbox| unload(sandbox, graph))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "finalize_execution_context",
        |mut caller: Caller<'_, Guest>, context: u32| {
            call(&mut caller, "finalize_execution_context", |_, sandbox| {
                finalize(sandbox, context)
            })
        },
    )?;
    let single = || Fault::Answer(Errno::UnsupportedOperation, "graphs run whole".to_owned());
    linker.func_wrap(
        MODULE,
        "get_output_single",
        move |mut caller: Caller<'_, Guest>, _: u32, _: u32, _: u32, _: u32, _: u32| {
            call(&mut caller, "get_output_single", |_, _| Err(single()))
        },
    )?;
    for name in ["compute_single", "fini_single"] {
        linker.func_wrap(
            MODULE,
            name,
            move |mut caller: Caller<'_, Guest>, _: u32| {
                call(&mut caller, name, |_, _| Err(single()))
            },
        )?;
    }
    Ok(())
}

/// Gives a call the guest's memory and sandbox, and makes an error number of its outcome.
fn call(
    caller: &mut Caller<'_, Guest>,
    name: &str,
    body: impl FnOnce(&mut Memory<'_>, &mut Sandbox) -> Done,
) -> wasmtime::Result<u32> {
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        let terms = &caller.data().sandbox.terms;
        terms.note(&format!("{name}: the guest exports no memory"));
        return Ok(Errno::MissingMemory as u32);
    };
    let (bytes, guest) = memory.data_and_store_mut(caller);
    match body(&mut Memory::new(bytes), &mut guest.sandbox) {
        Ok(()) => Ok(Errno::Success as u32),
        Err(Fault::Answer(errno, message)) => {
            guest.sandbox.terms.note(&format!("{name}: {message}"));
            Ok(errno as u32)
        }
        Err(Fault::End(error)) => Err(error),
    }
}

fn text<'a>(memory: &'a Memory<'_>, at: u32, len: u32) -> Result<&'a str, Fault> {
    if len > TEXT_BYTES_MAX {
        return Err(invalid(format!("a text of {len} bytes is too long")));
    }
    std::str::from_utf8(memory.bytes(at, len)?).map_err(|_| invalid("a text is not UTF-8"))
}

//! What an instance of the engine's guest holds, as the start of other instances.
//!
//! An image is a module: the guest's code, with the memory and the globals of the instance written into
//! it (by Wizer). The pool maps that memory copy-on-write, so an instance of a graph with a hundred
//! megabytes of weights costs as much as one of an empty graph.
//!
//! The guest imports nothing, no clock and no random numbers, so from the same graph it comes to hold the
//! same bytes: an image that an earlier start compiled is found by them.

use std::fmt;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasmtime::{Instance, InstancePre, Module, Store, Val};
use wasmtime_wizer::{InstanceState, SnapshotVal, ValType, Wizer};

use super::StrictError;
use super::guest::{Guest, Room, TractGuest, link};
use crate::budget::Budget;
use crate::limits::Limits;

/// The start of instances.
#[derive(Clone)]
pub(super) struct Image(InstancePre<Room>);

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").finish_non_exhaustive()
    }
}

impl Image {
    /// An instance that begins as the image.
    pub(super) fn start<'a>(
        &self,
        guest: &'a TractGuest,
        limits: &Limits,
        budget: Budget,
    ) -> Result<Guest<'a>, StrictError> {
        Guest::start(guest, &self.0, limits, budget)
    }
}

/// Whether an image outlives its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lasting {
    /// It is kept with other compiled code.
    Kept,
    /// It is not: who may choose shapes must not push out what others need.
    Passing,
}

/// The image of an instance of the guest.
pub(super) fn of(
    guest: &TractGuest,
    store: &mut Store<Room>,
    instance: Instance,
    lasting: Lasting,
) -> wasmtime::Result<Image> {
    let wizer = Wizer::new();
    let (context, _) = wizer.instrument(&guest.wasm)?;
    let mut state = State { store, instance };
    let image = at_once(wizer.snapshot(&context, &mut state))?;
    drop(context);
    let module: Module = match lasting {
        Lasting::Kept => guest.shared.compile(&image)?,
        Lasting::Passing => Module::from_binary(&guest.shared.engine, &image)?,
    };
    Ok(Image(link(&module)?))
}

/// Runs a future that waits for nothing.
fn at_once<T>(future: impl Future<Output = wasmtime::Result<T>>) -> wasmtime::Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => Err(wasmtime::format_err!("reading an instance had to wait")),
    }
}

/// How Wizer reads an instance.
struct State<'a> {
    store: &'a mut Store<Room>,
    instance: Instance,
}

impl InstanceState for State<'_> {
    async fn global_get(&mut self, name: &str, _: ValType) -> SnapshotVal {
        let global = self.instance.get_global(&mut *self.store, name);
        let global = global.expect("the instrumented guest exports its globals");
        match global.get(&mut *self.store) {
            Val::I32(value) => SnapshotVal::I32(value),
            Val::I64(value) => SnapshotVal::I64(value),
            Val::F32(value) => SnapshotVal::F32(value),
            Val::F64(value) => SnapshotVal::F64(value),
            Val::V128(value) => SnapshotVal::V128(value.as_u128()),
            _ => unreachable!("the guest has no globals of reference types"),
        }
    }

    async fn memory_contents(&mut self, name: &str, contents: impl FnOnce(&[u8]) + Send) {
        let memory = self.instance.get_memory(&mut *self.store, name);
        let memory = memory.expect("the instrumented guest exports its memory");
        contents(memory.data(&self.store));
    }
}

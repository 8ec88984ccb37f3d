//! The little of WASI that a guest may have: standard error, a clock, random numbers.
//!
//! None of it waits: there is nothing to poll, so a guest that would sleep or subscribe to a stream
//! is refused when it is linked. Standard error goes to the log.

use std::sync::OnceLock;
use std::time::Instant;

use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType};

use super::Sandbox;

/// The only stream there is.
struct Stderr;

/// The errors of streams. None ever occurs.
struct StreamFailure;

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<StreamFailure>),
    #[component(name = "closed")]
    Closed,
}

/// What a stream says that it can take at once.
const WRITE_BYTES_MAX: u64 = 4096;

/// Most random bytes in one call.
const RANDOM_BYTES_MAX: u64 = 4096;

type Store<'a> = StoreContextMut<'a, Sandbox>;
type Written = wasmtime::Result<(Result<(), StreamError>,)>;

pub(super) fn add_to_linker(linker: &mut Linker<Sandbox>) -> wasmtime::Result<()> {
    let mut error = linker.instance("wasi:io/error@0.2.0")?;
    error.resource(
        "error",
        ResourceType::host::<StreamFailure>(),
        |mut store: Store<'_>, rep| {
            store
                .data_mut()
                .table
                .delete(Resource::<StreamFailure>::new_own(rep))?;
            Ok(())
        },
    )?;
    error.func_wrap(
        "[method]error.to-debug-string",
        |_: Store<'_>, (_,): (Resource<StreamFailure>,)| Ok(("the stream failed".to_owned(),)),
    )?;

    let mut streams = linker.instance("wasi:io/streams@0.2.0")?;
    streams.resource(
        "output-stream",
        ResourceType::host::<Stderr>(),
        |mut store: Store<'_>, rep| {
            store
                .data_mut()
                .table
                .delete(Resource::<Stderr>::new_own(rep))?;
            Ok(())
        },
    )?;
    streams.func_wrap(
        "[method]output-stream.check-write",
        |_: Store<'_>, (_,): (Resource<Stderr>,)| Ok((Ok::<u64, StreamError>(WRITE_BYTES_MAX),)),
    )?;
    for name in ["write", "blocking-write-and-flush"] {
        streams.func_wrap(&format!("[method]output-stream.{name}"), write)?;
    }
    for name in ["flush", "blocking-flush"] {
        streams.func_wrap(&format!("[method]output-stream.{name}"), flush)?;
    }

    linker
        .instance("wasi:cli/stderr@0.2.0")?
        .func_wrap("get-stderr", |mut store: Store<'_>, (): ()| {
            Ok((store.data_mut().push(Stderr)?,))
        })?;

    let mut clock = linker.instance("wasi:clocks/monotonic-clock@0.2.0")?;
    clock.func_wrap("now", |_: Store<'_>, (): ()| Ok((nanoseconds(),)))?;
    clock.func_wrap("resolution", |_: Store<'_>, (): ()| Ok((1_u64,)))?;

    let mut random = linker.instance("wasi:random/random@0.2.0")?;
    random.func_wrap("get-random-bytes", |_: Store<'_>, (len,): (u64,)| {
        let len = usize::try_from(len.min(RANDOM_BYTES_MAX + 1))?;
        wasmtime::ensure!(
            len as u64 <= RANDOM_BYTES_MAX,
            "at most {RANDOM_BYTES_MAX} random bytes can be had at once"
        );
        let mut bytes = vec![0; len];
        fill(&mut bytes)?;
        Ok((Bytes::from(bytes),))
    })?;
    random.func_wrap("get-random-u64", |_: Store<'_>, (): ()| {
        let mut bytes = [0; 8];
        fill(&mut bytes)?;
        Ok((u64::from_le_bytes(bytes),))
    })?;
    Ok(())
}

fn write(mut store: Store<'_>, (stream, bytes): (Resource<Stderr>, Bytes)) -> Written {
    let sandbox = store.data_mut();
    sandbox.table.get(&stream)?;
    sandbox.log.write(&bytes, &sandbox.terms);
    Ok((Ok(()),))
}

fn flush(_: Store<'_>, (_,): (Resource<Stderr>,)) -> Written {
    Ok((Ok(()),))
}

/// Nanoseconds since some instant of this process. What guests learn of the host's uptime is nothing.
fn nanoseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let elapsed = START.get_or_init(Instant::now).elapsed();
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

fn fill(bytes: &mut [u8]) -> wasmtime::Result<()> {
    SystemRandom::new()
        .fill(bytes)
        .map_err(|_| wasmtime::format_err!("the system gave no random bytes"))
}

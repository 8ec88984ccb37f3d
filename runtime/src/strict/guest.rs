//! The engine's guest, and one instance of it: how it is started, called and ended.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use wasmtime::{Instance, InstancePre, Linker, Memory, Module, Store, Trap, UpdateDeadline};
use wasmtime_wizer::Wizer;

use super::StrictError;
use super::image::{self, Image, Lasting};
use crate::budget::{Budget, Stop};
use crate::limits::Limits;
use crate::runtime::Shared;

/// Largest file of the guest; it has some twenty megabytes.
const GUEST_BYTES_MAX: u64 = 64 << 20;

/// Longest text of a panic that is passed on.
const LAST_WORDS_BYTES_MAX: usize = 1024;

/// Why the engine's guest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TractGuestError {
    /// The file cannot be read.
    #[error("failed to read the graph engine's guest {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It is not the guest: it does not compile, imports something, or no image can be made of it.
    #[error("not the graph engine's guest: {reason}")]
    Guest {
        /// What wasmtime says, causes included.
        reason: String,
    },
}

/// The engine of graphs, compiled for WebAssembly and then for this machine.
pub(crate) struct TractGuest {
    pub(super) shared: Arc<Shared>,
    /// The guest as it was built: images are made against it.
    pub(super) wasm: Vec<u8>,
    /// Held while a graph is planned: the pool has one place for that.
    pub(super) planning: Mutex<()>,
    pre: InstancePre<Room>,
}

impl fmt::Debug for TractGuest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TractGuest").finish_non_exhaustive()
    }
}

/// What an instance may use: memory, and time.
pub(super) struct Room {
    budget: Budget,
    memory_bytes_max: usize,
    is_full: bool,
}

impl wasmtime::ResourceLimiter for Room {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.is_full |= desired > self.memory_bytes_max;
        Ok(desired <= self.memory_bytes_max)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        _desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // The guest's table is as long as its compiler made it; the pool bounds that.
        Ok(true)
    }
}

impl TractGuest {
    /// Reads and compiles the guest, which takes seconds unless an earlier start kept what it made.
    pub(crate) fn read(path: &Path, shared: Arc<Shared>) -> Result<Self, TractGuestError> {
        let unreadable = |source| TractGuestError::Read {
            path: path.to_owned(),
            source,
        };
        let len = std::fs::metadata(path).map_err(unreadable)?.len();
        if len > GUEST_BYTES_MAX {
            let reason = format!("{len} bytes, at most {GUEST_BYTES_MAX} are allowed");
            return Err(TractGuestError::Guest { reason });
        }
        let wasm = std::fs::read(path).map_err(unreadable)?;
        let compile = || {
            // The exports that this adds are how an image reads what an instance holds.
            let (_, instrumented) = Wizer::new().instrument(&wasm)?;
            link(&shared.compile(&instrumented)?)
        };
        let pre = compile().map_err(|error| TractGuestError::Guest {
            reason: format!("{error:#}"),
        })?;
        Ok(Self {
            shared,
            wasm,
            planning: Mutex::default(),
            pre,
        })
    }

    /// An instance that has read nothing yet.
    pub(super) fn start(&self, limits: &Limits, budget: Budget) -> Result<Guest<'_>, StrictError> {
        Guest::start(self, &self.pre, limits, budget)
    }
}

/// Code of the guest, ready to be instantiated. It imports nothing, so a module that does is refused.
pub(super) fn link(module: &Module) -> wasmtime::Result<InstancePre<Room>> {
    Linker::new(module.engine()).instantiate_pre(module)
}

/// An instance.
pub(super) struct Guest<'a> {
    engine: &'a TractGuest,
    store: Store<Room>,
    instance: Instance,
    memory: Memory,
}

impl<'a> Guest<'a> {
    pub(super) fn start(
        engine: &'a TractGuest,
        pre: &InstancePre<Room>,
        limits: &Limits,
        budget: Budget,
    ) -> Result<Self, StrictError> {
        let room = Room {
            budget,
            memory_bytes_max: limits.strict_memory_bytes_max,
            is_full: false,
        };
        let mut store = Store::new(&engine.shared.engine, room);
        store.limiter(|room| room);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| {
            context.data().budget.check()?;
            Ok(UpdateDeadline::Continue(1))
        });
        let instance = pre
            .instantiate(&mut store)
            .map_err(|error| failed(&store, &error, ""))?;
        let memory =
            instance
                .get_memory(&mut store, "memory")
                .ok_or_else(|| StrictError::Answer {
                    reason: "it has no memory".to_owned(),
                })?;
        Ok(Self {
            engine,
            store,
            instance,
            memory,
        })
    }

    /// Passes a message, in parts, and calls a function on it. Gives the answer.
    pub(super) fn call(&mut self, function: &str, parts: &[&[u8]]) -> Result<Bytes, StrictError> {
        let _ticking = self.engine.shared.ticker.run();
        self.exchange(function, parts).map_err(|error| {
            if let Some(stop) = error.downcast_ref::<Stop>() {
                return StrictError::Stopped(*stop);
            }
            let words = match error.downcast_ref::<Trap>() {
                Some(Trap::UnreachableCodeReached) => self.last_words(),
                _ => String::new(),
            };
            failed(&self.store, &error, &words)
        })
    }

    fn exchange(&mut self, function: &str, parts: &[&[u8]]) -> wasmtime::Result<Bytes> {
        let store = &mut self.store;
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let reserve = self
            .instance
            .get_typed_func::<u32, u32>(&mut *store, "reserve")?;
        let mut at = usize::try_from(reserve.call(&mut *store, u32::try_from(len)?)?)?;
        for part in parts {
            self.memory.write(&mut *store, at, part)?;
            at += part.len();
        }
        let function = self
            .instance
            .get_typed_func::<(), u64>(&mut *store, function)?;
        let answer = function.call(&mut *store, ())?;
        self.bytes_at(answer)
    }

    /// A copy of the bytes that an answer names, which may lie anywhere or nowhere.
    fn bytes_at(&self, place: u64) -> wasmtime::Result<Bytes> {
        let start = usize::try_from(place >> 32)?;
        let len = usize::try_from(place & u64::from(u32::MAX))?;
        let memory = self.memory.data(&self.store);
        let bytes = memory.get(start..).and_then(|rest| rest.get(..len));
        let bytes =
            bytes.ok_or_else(|| wasmtime::format_err!("its answer lies outside its memory"))?;
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn last_words(&mut self) -> String {
        let store = &mut self.store;
        let words = self
            .instance
            .get_typed_func::<(), u64>(&mut *store, "last_words")
            .and_then(|function| function.call(&mut *store, ()))
            .and_then(|place| self.bytes_at(place))
            .unwrap_or_default();
        let words = &words[..words.len().min(LAST_WORDS_BYTES_MAX)];
        String::from_utf8_lossy(words).replace(char::is_control, " ")
    }

    /// What the instance holds now, as the start of others. Takes seconds of the compiler's time, unless it is
    /// to last and an earlier start kept it.
    pub(super) fn image(mut self, lasting: Lasting) -> Result<Image, StrictError> {
        let engine = self.engine;
        image::of(engine, &mut self.store, self.instance, lasting).map_err(|error| {
            StrictError::Failed {
                reason: format!("no image can be made of it: {error:#}"),
            }
        })
    }
}

fn failed(store: &Store<Room>, error: &wasmtime::Error, words: &str) -> StrictError {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return StrictError::Stopped(*stop);
    }
    let full = if store.data().is_full {
        format!(
            " after it met the limit of {} bytes of memory",
            store.data().memory_bytes_max
        )
    } else {
        String::new()
    };
    let what = match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "it exhausted its stack".to_owned(),
        Some(_) if !words.is_empty() => words.to_owned(),
        Some(trap) => format!("it trapped: {trap}"),
        None => format!("{error:#}"),
    };
    StrictError::Failed {
        reason: format!("{what}{full}"),
    }
}

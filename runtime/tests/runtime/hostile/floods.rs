//! Guests that take without end: memory, tables, tensors, lists, the log.

use std::sync::{Arc, Mutex};

use tidegate_inference::FailureKind;
use tidegate_runtime::Limits;

use super::{TENSOR, check, fails};
use crate::fixture::{ECHO, budget, guest, load, module, run, runtime, runtime_with};

#[test]
fn memory_without_end_is_refused() {
    let body = "(loop $more
            (br_if $more (i32.ne (memory.grow (i32.const 64)) (i32.const -1))))
        unreachable";
    check("", "", body, FailureKind::Module, "bytes of memory");
}

#[test]
fn a_table_without_end_is_refused() {
    let items = "(table $t 1 funcref)";
    let body = "(loop $more
            (br_if $more (i32.ne
                (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
        unreachable";
    check("", items, body, FailureKind::Module, "table elements");
}

#[test]
fn a_list_that_would_fill_the_host_is_refused() {
    // Eight thousand outputs, every name the same sixty kilobytes: half a gigabyte for the host.
    let body = "(loop $next
            (i32.store (i32.add (local.get $i) (i32.const 4)) (i32.const 60000))
            (local.set $i (i32.add (local.get $i) (i32.const 12)))
            (br_if $next (i32.lt_u (local.get $i) (i32.const 98304))))
        (i32.store (i32.const 131060) (i32.const 0))
        (i32.store (i32.const 131064) (i32.const 0))
        (i32.store (i32.const 131068) (i32.const 8192))
        (i32.const 131060)";
    check("", "", body, FailureKind::Module, "failed");
}

fn flood(len: u32) -> (String, String) {
    let import = format!(
        "(import \"{TENSOR}\" \"[constructor]tensor\"
            (func $make (param i32 i32 i32 i32 i32) (result i32)))"
    );
    let body = format!(
        "(i32.store (i32.const 1024) (i32.const {len}))
        (loop $more
            (drop (call $make (i32.const 1024) (i32.const 1) (i32.const 4)
                (i32.const 2048) (i32.const {len})))
            (br $more))
        unreachable"
    );
    (import, body)
}

#[test]
fn a_flood_of_tensors_is_refused() {
    let (import, body) = flood(1);
    check(&import, "", &body, FailureKind::Module, "handles");
    let (import, body) = flood(100_000);
    let runtime = runtime_with(Limits {
        tensor_bytes_max: 1 << 20,
        ..Limits::default()
    });
    let model = load(&runtime, &module(&guest(&import, "", &body)));
    fails(&model, &budget(), FailureKind::Module, "bytes of tensors");
}

#[test]
fn dropping_tensors_frees_their_budget() {
    let imports = format!(
        "(import \"{TENSOR}\" \"[constructor]tensor\"
            (func $make (param i32 i32 i32 i32 i32) (result i32)))
        (import \"{TENSOR}\" \"[resource-drop]tensor\" (func $drop (param i32)))"
    );
    let body = format!(
        "(i32.store (i32.const 2048) (i32.const 50000))
        (loop $more
            (call $drop (call $make (i32.const 2048) (i32.const 1) (i32.const 4)
                (i32.const 4096) (i32.const 50000)))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $i) (i32.const 5000))))
        {ECHO}"
    );
    let runtime = runtime_with(Limits {
        tensor_bytes_max: 1 << 20,
        ..Limits::default()
    });
    let model = load(&runtime, &module(&guest(&imports, "", &body)));
    run(&model, &budget()).unwrap();
}

#[test]
fn a_tensor_that_does_not_add_up_traps() {
    let (import, _) = flood(1);
    let body = "(i32.store (i32.const 1024) (i32.const 3))
        (call $make (i32.const 1024) (i32.const 1) (i32.const 1) (i32.const 2048) (i32.const 11))";
    check(
        &import,
        "",
        body,
        FailureKind::Module,
        "takes 12 bytes, got 11",
    );
}

#[test]
fn outputs_above_the_limit_are_refused() {
    let runtime = runtime_with(Limits {
        output_bytes_max: 7,
        ..Limits::default()
    });
    let model = load(&runtime, &module(&guest("", "", ECHO)));
    fails(
        &model,
        &budget(),
        FailureKind::Module,
        "above the limit of 7",
    );
}

#[test]
fn inputs_above_the_limit_are_too_large() {
    let runtime = runtime_with(Limits {
        tensor_bytes_max: 7,
        ..Limits::default()
    });
    let model = load(&runtime, &module(&guest("", "", ECHO)));
    fails(&model, &budget(), FailureKind::TooLarge, "bytes of tensors");
}

#[test]
fn a_flood_of_log_lines_is_cut() {
    let imports = "
        (import \"wasi:cli/stderr@0.2.3\" \"get-stderr\" (func $stderr (result i32)))
        (import \"wasi:io/streams@0.2.3\" \"[method]output-stream.blocking-write-and-flush\"
            (func $write (param i32 i32 i32 i32)))";
    let items = "(data (i32.const 16) \"\\1b[31mnoise\\0a\")";
    let body = format!(
        "(loop $more
            (call $write (call $stderr) (i32.const 16) (i32.const 11) (i32.const 1024))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $i) (i32.const 1000))))
        {ECHO}"
    );
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let runtime = runtime();
    let model = load(&runtime, &module(&guest(imports, items, &body)));
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..10 {
            run(&model, &budget()).unwrap();
        }
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines = log.lines().filter(|line| line.contains("noise")).count();
    assert!((1..=40).contains(&lines), "{lines} lines:\n{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}

/// Keeps what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl tracing_subscriber::fmt::MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

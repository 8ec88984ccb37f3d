//! What requests and models hold and copy, counted by the allocator of this program.
//!
//! A copy of a tensor needs memory to copy it to, so bytes allocated in blocks of a tensor's size are
//! bytes that were copied, or made.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "runtime/fixture.rs"]
mod fixture;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tidegate_inference::{Dtype, NamedTensor};
use tidegate_runtime::module::pass_through;
use tidegate_runtime::{Manifest, Model, ModuleFile};
use tract_onnx::pb::TensorProto;
use tract_onnx::pb::tensor_proto::DataType;

use fixture::{
    ECHO, budget, guest, identity, load, node, onnx, packed, runtime, spec, tensor, value,
};

/// Blocks of this size and above hold tensors; everything else in a request is smaller.
const LARGE_BYTES: usize = 64 << 10;

/// A picture of 224 x 224 pixels in three colours of 32 bits: some 600 KB.
const ELEMENTS: usize = 3 * 224 * 224;

/// Bytes of large blocks allocated since the program began.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

/// Bytes of large blocks that are allocated now, and the most that ever were since it was last set.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// One test at a time, since all count the same.
static ALONE: Mutex<()> = Mutex::new(());

struct Counting;

impl Counting {
    fn add(bytes: usize) {
        if bytes >= LARGE_BYTES {
            ALLOCATED.fetch_add(bytes, Ordering::Relaxed);
            let live = LIVE.fetch_add(bytes, Ordering::Relaxed) + bytes;
            PEAK.fetch_max(live, Ordering::Relaxed);
        }
    }

    fn subtract(bytes: usize) {
        if bytes >= LARGE_BYTES {
            LIVE.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

#[expect(unsafe_code, reason = "an allocator is")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        Self::subtract(layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::subtract(layout.size());
        Self::add(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `step` gives, and the bytes of large blocks that it allocated.
fn allocated<T>(step: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATED.load(Ordering::Relaxed);
    let made = step();
    (made, ALLOCATED.load(Ordering::Relaxed) - before)
}

/// Bytes in large blocks that a request with this input allocates, once everything is warm.
fn copied(model: &Model, input: &NamedTensor) -> usize {
    let answer = || model.infer(vec![input.clone()], &budget()).unwrap();
    let first = answer();
    let (second, bytes) = allocated(answer);
    assert_eq!(first, second);
    assert_eq!(second[0].tensor.data(), input.tensor.data());
    bytes
}

fn picture() -> NamedTensor {
    let data: Vec<u8> = (0..ELEMENTS * 4)
        .map(|i| u8::try_from(i % 251).unwrap())
        .collect();
    tensor("x", Dtype::Fp32, &[ELEMENTS], data)
}

#[test]
fn a_guest_that_hands_tensors_on_copies_none_of_their_bytes() {
    let _alone = ALONE.lock();
    let runtime = runtime();
    let specs = vec![spec("x", Dtype::Fp32, &[-1])];
    let manifest = Manifest::new("echo", "1.0.0", specs.clone(), specs);
    let component = guest("", "", ECHO);
    let file = ModuleFile::assemble(&component, manifest, &[("g", &identity())]).unwrap();
    assert_eq!(copied(&load(&runtime, &file), &picture()), 0);
}

#[test]
fn a_graph_copies_its_input_once_and_its_output_never() {
    let _alone = ALONE.lock();
    let runtime = runtime();
    let extent = i64::try_from(ELEMENTS).unwrap();
    let float = |name: &str| value(name, DataType::Float, vec![extent.into()]);
    let nodes = vec![node("Identity", &["x"], "y")];
    let graph = onnx(vec![float("x")], vec![], nodes, vec![float("y")]);
    let bytes = copied(&load(&runtime, &packed(&graph)), &picture());
    assert_eq!(bytes, ELEMENTS * 4);
}

/// Weights of 32 MiB, a few KiB in and out.
fn heavy(name: &str) -> ModuleFile {
    const ROWS: usize = 1024;
    const COLUMNS: usize = 8192;
    let weights = TensorProto {
        name: "w".to_owned(),
        dims: vec![ROWS as i64, COLUMNS as i64],
        data_type: DataType::Float.into(),
        raw_data: vec![0; ROWS * COLUMNS * 4],
        ..TensorProto::default()
    };
    let float = |name: &str, extent: usize| {
        value(
            name,
            DataType::Float,
            vec![1.into(), (extent as i64).into()],
        )
    };
    let nodes = vec![node("MatMul", &["x", "w"], "y")];
    let graph = onnx(
        vec![float("x", ROWS)],
        vec![weights],
        nodes,
        vec![float("y", COLUMNS)],
    );
    let (inputs, outputs) = tidegate_graph::describe(&graph).unwrap();
    let manifest = Manifest::new(name, "1.0.0", inputs, outputs);
    ModuleFile::assemble(&pass_through("g").unwrap(), manifest, &[("g", &graph)]).unwrap()
}

#[test]
fn the_second_user_of_a_graph_holds_no_weights_of_its_own() {
    const WEIGHTS: usize = 32 << 20;
    let _alone = ALONE.lock();
    let runtime = runtime();
    let (one, other) = (heavy("one"), heavy("other"));
    let live = || LIVE.load(Ordering::Relaxed);

    let before = live();
    let first = load(&runtime, &one);
    let with_first = live() - before;
    assert!(with_first >= WEIGHTS, "{with_first}");
    let second = load(&runtime, &other);
    let with_second = live() - before - with_first;
    assert!(
        with_second < 1 << 20,
        "{with_second} bytes for the second model"
    );

    let input = || vec![tensor("x", Dtype::Fp32, &[1, 1024], vec![0; 4096])];
    first.infer(input(), &budget()).unwrap();
    let before = live();
    PEAK.store(before, Ordering::Relaxed);
    std::thread::scope(|scope| {
        for model in [&first, &second, &first, &second] {
            scope.spawn(move || model.infer(input(), &budget()).unwrap());
        }
    });
    let at_most = PEAK.load(Ordering::Relaxed) - before;
    assert!(at_most < 4 << 20, "{at_most} bytes for four runs at once");
}

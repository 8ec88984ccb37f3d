//! Writes the component of a module that only runs its graph.
//!
//! `tidegate pack` makes a module of an ONNX file alone, so the guest is written here instruction by
//! instruction. It hands the list of inputs that it got straight to `compute` and returns that call's
//! result, which has the same shape in memory as its own: no element is looked at, and tensors stay
//! in the host. Its memory holds the graph's name, one return area, and a heap that only grows; the
//! instance lives for one request.

use wasm_encoder::{
    CodeSection, ConstExpr, DataSection, EntityType, ExportKind, ExportSection, Function,
    FunctionSection, GlobalSection, GlobalType, ImportSection, MemArg, MemorySection, MemoryType,
    Module, TypeSection, ValType,
};

use super::guest::component_from_guest;
use super::{GRAPHS_MAX, GuestError};

/// Why the component could not be written.
#[derive(Debug, thiserror::Error)]
pub enum PassThroughError {
    /// The name does not fit its place.
    #[error("the graph's name has {got} bytes, at most {NAME_BYTES_MAX} fit")]
    Name {
        /// Its length.
        got: usize,
    },
    /// wit-component refused the generated module.
    #[error("failed to make a component")]
    Encode {
        /// Why.
        source: GuestError,
    },
}

const NAME_BYTES_MAX: usize = tidegate_inference::NAME_BYTES_MAX;

const GRAPH: &str = "wasi:nn/graph@0.2.0-rc-2024-10-28";
const INFERENCE: &str = "wasi:nn/inference@0.2.0-rc-2024-10-28";
const ERRORS: &str = "wasi:nn/errors@0.2.0-rc-2024-10-28";

/// Where the graph's name lies in the guest's memory.
const NAME_AT: u32 = 0;
/// Where calls put their results: a discriminant, and two words from the fifth byte on.
const RETURN_AT: i32 = 256;
const PAYLOAD_AT: i32 = RETURN_AT + 4;
/// Where the heap begins.
const HEAP_AT: i32 = 1024;

const _: () = assert!(NAME_AT as usize + NAME_BYTES_MAX <= RETURN_AT as usize);
const _: () = assert!(PAYLOAD_AT + 8 <= HEAP_AT && GRAPHS_MAX > 0);

// Indices of functions: imports first, then our own.
const LOAD_BY_NAME: u32 = 0;
const INIT_CONTEXT: u32 = 1;
const COMPUTE: u32 = 2;
const ERROR_DATA: u32 = 3;
const FAIL: u32 = 4;
const INFER: u32 = 5;
const REALLOC: u32 = 6;

/// A component of world `tidegate:model/module@1.0.0` that answers each request with the result of the
/// graph of this name.
///
/// The inputs and outputs of the graph must be those of the module's manifest.
pub fn pass_through(graph: &str) -> Result<Vec<u8>, PassThroughError> {
    if graph.len() > NAME_BYTES_MAX {
        let got = graph.len();
        return Err(PassThroughError::Name { got });
    }
    component_from_guest(&core_module(graph)).map_err(|source| PassThroughError::Encode { source })
}

fn core_module(graph: &str) -> Vec<u8> {
    use ValType::I32;
    let mut types = TypeSection::new();
    for (parameters, results) in [(2, 0), (3, 0), (4, 0), (1, 1), (2, 1), (4, 1)] {
        types
            .ty()
            .function(vec![I32; parameters], vec![I32; results]);
    }
    let mut imports = ImportSection::new();
    imports
        .import(GRAPH, "load-by-name", EntityType::Function(1))
        .import(
            GRAPH,
            "[method]graph.init-execution-context",
            EntityType::Function(0),
        )
        .import(
            INFERENCE,
            "[method]graph-execution-context.compute",
            EntityType::Function(2),
        )
        .import(ERRORS, "[method]error.data", EntityType::Function(0));
    let mut functions = FunctionSection::new();
    functions.function(3).function(4).function(5);
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut globals = GlobalSection::new();
    globals.global(
        GlobalType {
            val_type: I32,
            mutable: true,
            shared: false,
        },
        &ConstExpr::i32_const(HEAP_AT),
    );
    let mut exports = ExportSection::new();
    exports
        .export("infer", ExportKind::Func, INFER)
        .export("cabi_realloc", ExportKind::Func, REALLOC)
        .export("memory", ExportKind::Memory, 0);
    let mut code = CodeSection::new();
    code.function(&fail())
        .function(&infer(graph))
        .function(&realloc());
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(0), graph.bytes());

    let mut module = Module::new();
    module
        .section(&types)
        .section(&imports)
        .section(&functions)
        .section(&memories)
        .section(&globals)
        .section(&exports)
        .section(&code)
        .section(&data);
    module.finish()
}

fn at(offset: u64) -> MemArg {
    MemArg {
        offset,
        align: 0,
        memory_index: 0,
    }
}

/// `fail(error) -> result`: the error's text as the result of `infer`.
fn fail() -> Function {
    let mut function = Function::new([]);
    function
        .instructions()
        .local_get(0)
        .i32_const(PAYLOAD_AT)
        .call(ERROR_DATA)
        .i32_const(RETURN_AT)
        .i32_const(1)
        .i32_store8(at(0))
        .i32_const(RETURN_AT)
        .end();
    function
}

/// `infer(inputs, inputs_len) -> result`.
fn infer(graph: &str) -> Function {
    let name_len = i32::try_from(graph.len()).expect("the name was measured");
    let mut function = Function::new([]);
    let mut code = function.instructions();
    code.i32_const(0).i32_const(name_len).i32_const(RETURN_AT);
    code.call(LOAD_BY_NAME);
    for next in [INIT_CONTEXT, COMPUTE] {
        code.i32_const(RETURN_AT)
            .i32_load8_u(at(0))
            .if_(wasm_encoder::BlockType::Empty)
            .i32_const(PAYLOAD_AT)
            .i32_load(at(0))
            .call(FAIL)
            .return_()
            .end()
            .i32_const(PAYLOAD_AT)
            .i32_load(at(0));
        if next == COMPUTE {
            code.local_get(0).local_get(1);
        }
        code.i32_const(RETURN_AT).call(next);
    }
    code.i32_const(RETURN_AT)
        .i32_load8_u(at(0))
        .if_(wasm_encoder::BlockType::Empty)
        .i32_const(PAYLOAD_AT)
        .i32_load(at(0))
        .call(FAIL)
        .return_()
        .end()
        .i32_const(RETURN_AT)
        .end();
    function
}

/// `realloc(old, old_len, align, len) -> place`: takes from the end of the heap, traps when full.
fn realloc() -> Function {
    const PLACE: u32 = 4;
    const END: u32 = 5;
    let mut function = Function::new([(2, ValType::I32)]);
    function
        .instructions()
        .global_get(0)
        .local_get(2)
        .i32_add()
        .i32_const(1)
        .i32_sub()
        .i32_const(0)
        .local_get(2)
        .i32_sub()
        .i32_and()
        .local_tee(PLACE)
        .local_get(3)
        .i32_add()
        .local_tee(END)
        .local_get(PLACE)
        .i32_lt_u()
        .if_(wasm_encoder::BlockType::Empty)
        .unreachable()
        .end()
        .local_get(END)
        .i32_const(16)
        .i32_shr_u()
        .memory_size(0)
        .i32_ge_u()
        .if_(wasm_encoder::BlockType::Empty)
        .local_get(END)
        .i32_const(16)
        .i32_shr_u()
        .memory_size(0)
        .i32_sub()
        .i32_const(1)
        .i32_add()
        .memory_grow(0)
        .i32_const(-1)
        .i32_eq()
        .if_(wasm_encoder::BlockType::Empty)
        .unreachable()
        .end()
        .end()
        .local_get(END)
        .global_set(0)
        .local_get(PLACE)
        .local_get(0)
        .local_get(1)
        .local_get(3)
        .local_get(1)
        .local_get(3)
        .i32_lt_u()
        .select()
        .memory_copy(0, 0)
        .local_get(PLACE)
        .end();
    function
}

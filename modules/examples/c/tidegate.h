// World tidegate:model/module@1.0.0 for guests in C, as the canonical ABI lays it out: no libc and no
// generated bindings. `tidegate pack --guest` knows the world by the names of these imports and of the
// exports `infer`, `cabi_realloc` and `memory`.

#ifndef TIDEGATE_H
#define TIDEGATE_H

#include <stdbool.h>
#include <stdint.h>

#define TIDEGATE_IMPORT(interface, name) \
    __attribute__((import_module(interface), import_name(name)))
#define TIDEGATE_EXPORT(name) __attribute__((export_name(name)))

#define TIDEGATE_NN(interface) "wasi:nn/" interface "@0.2.0-rc-2024-10-28"

// Handles of things that live in the host. Each is given on or dropped, once.
typedef int32_t tidegate_tensor;
typedef int32_t tidegate_graph;
typedef int32_t tidegate_context;
typedef int32_t tidegate_error;

typedef struct {
    const char *at;
    uint32_t len;
} tidegate_string;

typedef struct {
    tidegate_string name;
    tidegate_tensor tensor;
} tidegate_named_tensor;

typedef struct {
    tidegate_named_tensor *at;
    uint32_t len;
} tidegate_named_tensors;

typedef struct {
    uint8_t *at;
    uint32_t len;
} tidegate_bytes;

// What `infer` gives, and where it is put: outputs, or what is wrong with the input.
typedef struct {
    uint8_t is_error;
    union {
        tidegate_named_tensors outputs;
        tidegate_string error;
    };
} tidegate_answer;

// What calls give that may fail: a handle, or an error.
typedef struct {
    uint8_t is_error;
    union {
        int32_t handle;
        tidegate_error error;
    };
} tidegate_made;

// What a run of a graph gives: its outputs, or an error.
typedef struct {
    uint8_t is_error;
    union {
        tidegate_named_tensors outputs;
        tidegate_error error;
    };
} tidegate_computed;

// `wasi:nn/tensor.tensor-type`.
enum tidegate_type {
    TIDEGATE_FP16,
    TIDEGATE_FP32,
    TIDEGATE_FP64,
    TIDEGATE_BF16,
    TIDEGATE_U8,
    TIDEGATE_I32,
    TIDEGATE_I64
};

TIDEGATE_IMPORT(TIDEGATE_NN("tensor"), "[constructor]tensor")
extern tidegate_tensor tidegate_tensor_new(
    const uint32_t *dimensions, uint32_t rank, int32_t type, const void *data, uint32_t len);

TIDEGATE_IMPORT(TIDEGATE_NN("tensor"), "[method]tensor.data")
extern void tidegate_tensor_data(tidegate_tensor tensor, tidegate_bytes *data);

TIDEGATE_IMPORT(TIDEGATE_NN("tensor"), "[resource-drop]tensor")
extern void tidegate_tensor_drop(tidegate_tensor tensor);

TIDEGATE_IMPORT(TIDEGATE_NN("graph"), "load-by-name")
extern void tidegate_graph_load(const char *name, uint32_t len, tidegate_made *graph);

TIDEGATE_IMPORT(TIDEGATE_NN("graph"), "[method]graph.init-execution-context")
extern void tidegate_graph_context(tidegate_graph graph, tidegate_made *context);

TIDEGATE_IMPORT(TIDEGATE_NN("inference"), "[method]graph-execution-context.compute")
extern void tidegate_context_compute(
    tidegate_context context, const tidegate_named_tensor *inputs, uint32_t len,
    tidegate_computed *computed);

TIDEGATE_IMPORT(TIDEGATE_NN("errors"), "[method]error.data")
extern void tidegate_error_text(tidegate_error error, tidegate_string *text);

// Answers one request. The inputs are those of the manifest, in its order, checked by the host. The
// guest defines it; what it gives must stay where it is until the host has read it.
TIDEGATE_EXPORT("infer")
tidegate_answer *tidegate_infer(tidegate_named_tensor *inputs, uint32_t len);

// Memory for what the host hands over, never given back: every request has an instance of its own. The
// guest takes from it as well. Traps when there is none left.
TIDEGATE_EXPORT("cabi_realloc")
void *tidegate_realloc(void *old, uint32_t old_len, uint32_t align, uint32_t len);

#endif

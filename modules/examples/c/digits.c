// Reads a handwritten digit: grey levels of 0 to 255 in, the digit and how sure the model is out.

#include "tidegate.h"

enum { PIXELS = 64, DIGITS = 10, PAGE = 65536 };

#define TEXT(literal) ((tidegate_string){literal, sizeof(literal) - 1})

extern uint8_t __heap_base;

static tidegate_answer answer;

static tidegate_answer *refuse(tidegate_string reason) {
    answer.is_error = true;
    answer.error = reason;
    return &answer;
}

static tidegate_answer *refuse_with(tidegate_error error) {
    tidegate_string text;
    tidegate_error_text(error, &text);
    return refuse(text);
}

tidegate_answer *tidegate_infer(tidegate_named_tensor *inputs, uint32_t len) {
    static const uint32_t image_shape[] = {1, PIXELS};
    static const uint32_t one[] = {1};
    static tidegate_named_tensor outputs[2];

    if (len != 1) {
        return refuse(TEXT("there is one input, the image"));
    }
    tidegate_bytes grey;
    tidegate_tensor_data(inputs[0].tensor, &grey);
    tidegate_tensor_drop(inputs[0].tensor);
    if (grey.len != PIXELS) {
        return refuse(TEXT("an image has 64 pixels"));
    }
    float pixels[PIXELS];
    for (int i = 0; i < PIXELS; i++) {
        pixels[i] = (float)grey.at[i] / 255.0f;
    }

    tidegate_made graph, context;
    tidegate_graph_load("digits", 6, &graph);
    if (graph.is_error) {
        return refuse_with(graph.error);
    }
    tidegate_graph_context(graph.handle, &context);
    if (context.is_error) {
        return refuse_with(context.error);
    }
    tidegate_named_tensor input = {
        TEXT("pixels"),
        tidegate_tensor_new(image_shape, 2, TIDEGATE_FP32, pixels, sizeof pixels),
    };
    tidegate_computed computed;
    tidegate_context_compute(context.handle, &input, 1, &computed);
    if (computed.is_error) {
        return refuse_with(computed.error);
    }

    tidegate_bytes data;
    tidegate_tensor_data(computed.outputs.at[0].tensor, &data);
    if (data.len != DIGITS * sizeof(float)) {
        return refuse(TEXT("the graph is not the one of this guest"));
    }
    const float *probabilities = (const float *)data.at;
    int64_t digit = 0;
    for (int i = 1; i < DIGITS; i++) {
        if (probabilities[i] > probabilities[digit]) {
            digit = i;
        }
    }
    float score = probabilities[digit];
    outputs[0] = (tidegate_named_tensor){
        TEXT("digit"), tidegate_tensor_new(one, 1, TIDEGATE_I64, &digit, sizeof digit)};
    outputs[1] = (tidegate_named_tensor){
        TEXT("score"), tidegate_tensor_new(one, 1, TIDEGATE_FP32, &score, sizeof score)};
    answer.outputs = (tidegate_named_tensors){outputs, 2};
    return &answer;
}

void *tidegate_realloc(void *old, uint32_t old_len, uint32_t align, uint32_t len) {
    static uint32_t heap;
    if (heap == 0) {
        heap = (uint32_t)&__heap_base;
    }
    uint32_t at = (heap + align - 1) & ~(align - 1);
    uint32_t end;
    if (__builtin_add_overflow(at, len, &end)) {
        __builtin_trap();
    }
    uint32_t pages = __builtin_wasm_memory_size(0);
    uint32_t wanted = end / PAGE + 1;
    if (wanted > pages && __builtin_wasm_memory_grow(0, wanted - pages) == (uint32_t)-1) {
        __builtin_trap();
    }
    heap = end;
    if (old_len > 0) {
        __builtin_memcpy((void *)at, old, old_len < len ? old_len : len);
    }
    return (void *)at;
}

// A program as one finds them: classifies a digit with `wasi_ephemeral_nn`, files and standard output.
//
// Usage: classify GRAPH IMAGE [TYPE]. GRAPH is the name of a graph or, with a slash in it, a file; IMAGE a
// file of 64 bytes; TYPE the number of 32-bit floats in the bindings that the program was built with.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NN(name) __attribute__((import_module("wasi_ephemeral_nn"), import_name(name)))

typedef struct {
    const void *at;
    uint32_t len;
} Slice;

typedef struct {
    Slice dimensions;
    uint8_t type;
    Slice data;
} Tensor;

enum { ENCODING_ONNX = 1, TARGET_AUTO = 3, PIXELS = 64, DIGITS = 10, GRAPH_BYTES_MAX = 1 << 20 };

NN("load") uint32_t nn_load(const Slice *, uint32_t, uint32_t, uint32_t, uint32_t *);
NN("load_by_name") uint32_t nn_load_by_name(const char *, uint32_t, uint32_t *);
NN("init_execution_context") uint32_t nn_init(uint32_t, uint32_t *);
NN("set_input") uint32_t nn_set_input(uint32_t, uint32_t, const Tensor *);
NN("compute") uint32_t nn_compute(uint32_t);
NN("get_output") uint32_t nn_get_output(uint32_t, uint32_t, void *, uint32_t, uint32_t *);

static void must(uint32_t errno_, const char *what) {
    if (errno_ != 0) {
        fprintf(stderr, "%s: error %u\n", what, errno_);
        exit(2);
    }
}

static size_t read_file(const char *path, void *into, size_t max) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(3);
    }
    size_t len = fread(into, 1, max, file);
    fclose(file);
    return len;
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "usage: classify GRAPH IMAGE [TYPE]\n");
        return 64;
    }
    uint32_t graph, context, len;
    if (strchr(argv[1], '/') != NULL) {
        uint8_t *onnx = malloc(GRAPH_BYTES_MAX);
        Slice part = {onnx, read_file(argv[1], onnx, GRAPH_BYTES_MAX)};
        must(nn_load(&part, 1, ENCODING_ONNX, TARGET_AUTO, &graph), "load");
        free(onnx);
    } else {
        must(nn_load_by_name(argv[1], strlen(argv[1]), &graph), "load_by_name");
    }
    must(nn_init(graph, &context), "init_execution_context");

    uint8_t grey[PIXELS];
    if (read_file(argv[2], grey, PIXELS) != PIXELS) {
        fprintf(stderr, "%s: not an image\n", argv[2]);
        return 3;
    }
    float pixels[PIXELS];
    for (int i = 0; i < PIXELS; i++) {
        pixels[i] = (float)grey[i] / 255.0f;
    }
    const uint32_t dimensions[] = {1, PIXELS};
    Tensor tensor = {
        {dimensions, 2},
        argc > 3 ? atoi(argv[3]) : 1,
        {pixels, sizeof pixels},
    };
    must(nn_set_input(context, 0, &tensor), "set_input");
    must(nn_compute(context), "compute");
    float probabilities[DIGITS];
    must(nn_get_output(context, 0, probabilities, sizeof probabilities, &len), "get_output");
    int digit = 0;
    for (int i = 1; i < DIGITS; i++) {
        if (probabilities[i] > probabilities[digit]) {
            digit = i;
        }
    }
    printf("%d %.4f\n", digit, probabilities[digit]);
    return len == sizeof probabilities ? 0 : 1;
}

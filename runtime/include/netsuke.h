/* netsuke: the C interface of the runtime. Load a .nsk file, ask what it wants, run it.
 *
 * Every function that can fail returns NETSUKE_OK (0) or an error code; netsuke_last_error() then gives the sentence that
 * says what, where, and what is allowed. Nothing throws, prints or aborts. Handles may be used from several threads at
 * once; freeing one must not race with its use. Strings returned belong to the handle they came from.
 *
 *     netsuke_engine* engine = NULL;
 *     netsuke_plan* plan = NULL;
 *     if (netsuke_load_file("model.nsk", NULL, &engine)) return report(netsuke_last_error());
 *     int64_t shape[4] = {1, 3, 224, 224};
 *     netsuke_shape input = {4, shape};
 *     if (netsuke_plan_new(engine, &input, 1, NULL, 0, &plan)) return report(netsuke_last_error());
 *     const void* inputs[1] = {pixels};
 *     void* outputs[1] = {logits};
 *     if (netsuke_run(plan, inputs, outputs)) return report(netsuke_last_error());
 */
#ifndef NETSUKE_H_
#define NETSUKE_H_

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define NETSUKE_API __attribute__((visibility("default")))
#else
#define NETSUKE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum {
  NETSUKE_OK = 0,
  NETSUKE_INVALID_ARGUMENT = 1, /* the caller's input: wrong shape, dtype, name */
  NETSUKE_CORRUPT_FILE = 2,     /* the file is damaged or hostile */
  NETSUKE_UNSUPPORTED = 3,      /* valid, but this build or CPU has no code for it */
  NETSUKE_OUT_OF_MEMORY = 4,
  NETSUKE_INTERNAL = 5          /* a bug of netsuke */
};

enum { /* dtypes */
  NETSUKE_F32 = 0,
  NETSUKE_BF16 = 1,
  NETSUKE_U8 = 2,
  NETSUKE_S8 = 3,
  NETSUKE_I32 = 4,
  NETSUKE_I64 = 5,
  NETSUKE_BOOL = 6
};

enum { NETSUKE_MAX_RANK = 8 };

typedef struct netsuke_engine netsuke_engine; /* a loaded program */
typedef struct netsuke_plan netsuke_plan;     /* a program prepared for certain input shapes; keeps its engine alive */

typedef struct {
  int threads;       /* the calling thread included; 0: one for each physical core */
  const char* isa;   /* "portable", "avx2", ...; NULL: NETSUKE_ISA of the environment, else the best of this CPU */
  int64_t max_bytes; /* of intermediate tensors; 0: the memory of the machine */
} netsuke_options;

typedef struct {
  int rank;
  const int64_t* dims;
} netsuke_shape;

typedef struct {
  const char* name;
  int dtype;
  int rank;
  int64_t dims[NETSUKE_MAX_RANK];         /* -1: free; of a plan's ports none is */
  const char* dim_names[NETSUKE_MAX_RANK]; /* of free dimensions, else NULL */
} netsuke_port;

typedef struct {
  const char* name;
  const char* op;
  const char* kernel; /* formats, instruction set and tile, e.g. "qconv_a8w8_x86_avx2_4x16" */
  const char* isa;
} netsuke_node;

typedef struct {
  int node;              /* index for netsuke_engine_node */
  int64_t macs;
  int64_t bytes_read;    /* weights included */
  int64_t bytes_written;
  int64_t nanoseconds;   /* filled by netsuke_profile, else 0 */
} netsuke_step;

NETSUKE_API const char* netsuke_version(void);
/* The message of the last call of this thread that failed; "" when none has. */
NETSUKE_API const char* netsuke_last_error(void);
/* Instruction sets compiled in, best first; NULL past the end. */
NETSUKE_API const char* netsuke_isa_name(int index);
NETSUKE_API int netsuke_isa_available(int index);

NETSUKE_API int netsuke_load_file(const char* path, const netsuke_options* options, netsuke_engine** engine);
/* The bytes are copied. */
NETSUKE_API int netsuke_load_memory(const void* bytes, size_t size, const netsuke_options* options, netsuke_engine** engine);
NETSUKE_API void netsuke_engine_free(netsuke_engine* engine);

NETSUKE_API int netsuke_engine_inputs(const netsuke_engine* engine);
NETSUKE_API int netsuke_engine_outputs(const netsuke_engine* engine);
NETSUKE_API int netsuke_engine_nodes(const netsuke_engine* engine);
NETSUKE_API int netsuke_engine_input(const netsuke_engine* engine, int index, netsuke_port* port);
NETSUKE_API int netsuke_engine_output(const netsuke_engine* engine, int index, netsuke_port* port);
NETSUKE_API int netsuke_engine_node(const netsuke_engine* engine, int index, netsuke_node* node);
NETSUKE_API const char* netsuke_engine_isa(const netsuke_engine* engine);
NETSUKE_API int netsuke_engine_threads(const netsuke_engine* engine);
NETSUKE_API int64_t netsuke_engine_file_bytes(const netsuke_engine* engine);
NETSUKE_API int64_t netsuke_engine_packed_bytes(const netsuke_engine* engine);

/* Shapes of all inputs, in order. taps: names of values that the plan returns behind the outputs. */
NETSUKE_API int netsuke_plan_new(netsuke_engine* engine, const netsuke_shape* shapes, int n_shapes, const char* const* taps,
                                 int n_taps, netsuke_plan** plan);
NETSUKE_API void netsuke_plan_free(netsuke_plan* plan);
NETSUKE_API int netsuke_plan_outputs(const netsuke_plan* plan); /* taps included */
NETSUKE_API int netsuke_plan_output(const netsuke_plan* plan, int index, netsuke_port* port);
NETSUKE_API int64_t netsuke_plan_output_bytes(const netsuke_plan* plan, int index);
NETSUKE_API int64_t netsuke_plan_arena_bytes(const netsuke_plan* plan);
NETSUKE_API int netsuke_plan_steps(const netsuke_plan* plan); /* calls of kernels in one run */
NETSUKE_API int netsuke_plan_step(const netsuke_plan* plan, int index, netsuke_step* step);

/* One address for each input and output: dense row-major arrays of the plan's shapes, aligned to their element. Outputs must not
 * overlap anything. Kernels read inputs and write outputs in place. */
NETSUKE_API int netsuke_run(netsuke_plan* plan, const void* const* inputs, void* const* outputs);
/* The same, and the time of each step; steps has netsuke_plan_steps() elements. */
NETSUKE_API int netsuke_profile(netsuke_plan* plan, const void* const* inputs, void* const* outputs, netsuke_step* steps);

#ifdef __cplusplus
}
#endif

#endif /* NETSUKE_H_ */

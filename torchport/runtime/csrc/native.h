// The parts of torchport.runtime._native and what each promises the others.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstdint>
#include <string>
#include <vector>

namespace torchport {

// The kernel ABI of docs/architecture.md: run the program instances [begin, end).
using Kernel = void (*)(const uint64_t *args, const int32_t grid[3], int64_t begin, int64_t end);

// ---- arguments.cpp: Python arguments -> 8-byte slots ----

enum class Type : uint8_t { pointer, i1, i8, i16, i32, i64, u8, u16, u32, u64, fp16, bf16, fp32, fp64 };

// One non-constexpr argument: `path` leads to it through nested tuples (one index for a plain argument).
struct Argument {
  Type type;
  std::vector<Py_ssize_t> path;
};

// True and sets `out`; false where the spelling is unknown (no Python exception set).
bool parse_type(const char *spelling, Type &out);

// Stores `value` in `slot`; tensors are checked to be in CPU memory unless `on_device` says that they are known to be.
// Returns false with a Python exception set.
bool store_argument(Type type, PyObject *value, bool on_device, uint64_t &slot);

// What a plain tensor or Parameter is; its sizes and strides live as long as nothing changes them. False for anything
// else, or what DLPack has no word for, perhaps with a Python exception set.
struct DLTensor;
bool describe_tensor(PyObject *tensor, DLTensor &out);

// Looks up what the conversion of tensors needs; `address_of_tensor`: a function of torch, or 0. Returns false with a
// Python exception set.
bool init_arguments(PyObject *tensor_types, PyObject *exchange_api, uintptr_t address_of_tensor);

// ---- threads.cpp: one grid over the threads ----

struct Launch {
  Kernel kernel;
  const uint64_t *args;
  const int32_t *grid;
  int64_t programs;
  double cost = 0;  // estimated nanoseconds of one program instance; 0: no part of the launch is worth a pause
};

// What the launching thread asks every 50 ms of a long launch; true ends the launch after the parts that are running.
struct Poll {
  bool (*stop)(void *context) = nullptr;
  void *context = nullptr;
};

enum class Outcome { passed, failed, stopped };

// The entry points of the OpenMP runtime that torch runs on; all null where there is none.
struct OpenMP {
  void (*parallel)(void (*)(void *), void *, unsigned, unsigned);  // GOMP_parallel
  int (*max_threads)();
  int (*in_parallel)();
  int (*thread_num)();
  int (*num_threads)();
};
extern OpenMP openmp;

// Threads worth using for a launch that takes `nanoseconds` on one, at most `limit`.
int worthwhile_threads(double nanoseconds, int64_t programs, int limit);

// Runs the launch in `threads` contiguous chunks. Needs no GIL. If an assertion failed, `failure` is set to the message
// of the lowest chunk's.
Outcome run_launch(const Launch &launch, int threads, const Poll &poll, std::string &failure);

// Called by kernels; does not return.
extern "C" void torchport_assert_fail(const char *message);

// ---- print.cpp ----

// What one tl.device_print of one tensor (or scalar: rank 0) is; constant data of the kernel.
struct Printed {
  int64_t kind;     // 'i' signed, 'u' unsigned, 'f' floating point, 'p' pointer, 0 nothing but the prefix
  int64_t bytes;    // of one element
  int64_t hex;      // whether to print bits
  int64_t operand;  // position among the values of a print with several, else -1
  int64_t rank;
  int64_t shape[];  // rank sizes
};

// Called by kernels: writes `pid (x, y, z) idx (...) prefix value` for each element to C's stdout and flushes it.
extern "C" void torchport_print(const char *prefix, const Printed *what, const void *values, int32_t x, int32_t y,
                                int32_t z);

// ---- launcher.cpp ----

// Adds the Launcher type to the module. Returns false with a Python exception set.
bool add_launcher_type(PyObject *module);

// Sets torch.get_num_threads and torchport.errors.KernelAssertionError (borrowed for the process's life).
void set_launcher_hooks(PyObject *get_num_threads, PyObject *assertion_error);

// Threads worth using here for work of that length in parts; -1 with a Python exception set. Needs the GIL.
int threads_for(double nanoseconds, int64_t parts);

// ---- statistics_module.cpp: what a tensor holds, in one pass ----

PyObject *summarize(PyObject *, PyObject *const *args, Py_ssize_t given);
PyObject *summarize_all(PyObject *, PyObject *const *args, Py_ssize_t given);

// ---- storage.cpp: storages of devices whose memory has no addresses here ----

PyObject *reserve_addresses(PyObject *, PyObject *size);
PyObject *size_class(PyObject *, PyObject *nbytes);
PyObject *storage_arena(PyObject *, PyObject *);
PyObject *storage_offer(PyObject *, PyObject *const *args, Py_ssize_t given);
PyObject *storage_take(PyObject *, PyObject *const *args, Py_ssize_t given);
PyObject *storage_unused(PyObject *, PyObject *arena);
PyObject *storage_bytes(PyObject *, PyObject *arena);
PyObject *storage_reset_peak(PyObject *, PyObject *arena);

// ---- inputs.cpp: whether the inputs of a graph are those of an earlier call ----

PyObject *inputs_of(PyObject *, PyObject *const *args, Py_ssize_t given);
PyObject *inputs_changed(PyObject *, PyObject *const *args, Py_ssize_t given);

// ---- sanitizer_module.cpp: checks of memory accesses ----

// Adds the sanitizer's functions to the module, and to `functions` those that kernels call. Returns false with a Python
// exception set.
bool add_sanitizer(PyObject *module, PyObject *functions);

}  // namespace torchport

// Launcher: calls one kernel over a grid, from Python, with as little as possible in between.
#include "native.h"

#include <structmember.h>

#include <algorithm>
#include <cstddef>

namespace torchport {
namespace {

PyObject *get_num_threads = nullptr;
PyObject *assertion_error = nullptr;
PyObject *calls_name = nullptr;

struct Launcher {
  PyObject_HEAD
  vectorcallfunc vectorcall;
  std::vector<Argument> *arguments;
  PyObject *name;
  double cost;
  Py_ssize_t max_index;  // highest argument that a slot is read from, or -1
  bool serial;
  bool flat;  // no nested tuples
  Kernel bound;  // set: called with the arguments alone, over `grid`; tensors are known to be in CPU memory
  int32_t grid[3];
};

// Positions of a call: the contract of Triton's CompiledKernel.run, kept by Inductor's launchers too.
enum { kGridX, kGridY, kGridZ, kStream, kFunction, kPacked, kMetadata, kEnterHook, kExitHook, kFirstArgument };

// A launch shorter than this keeps the GIL: giving it up and taking it back costs ~60 ns, and other threads wait for
// it no longer than for any other small C function.
constexpr double kKeepGilBelow = 5e3;

bool call_hook(PyObject *hook, PyObject *metadata) {
  if (hook == Py_None) return true;
  // Triton's HookChain is always there, most often empty: looking costs a third of calling it.
  PyObject *calls = PyObject_GetAttr(hook, calls_name);
  if (!calls) PyErr_Clear();
  const bool empty = calls && PyList_CheckExact(calls) && PyList_GET_SIZE(calls) == 0;
  Py_XDECREF(calls);
  if (empty) return true;
  PyObject *result = PyObject_CallOneArg(hook, metadata);
  Py_XDECREF(result);
  return result != nullptr;
}

// Runs the handlers of signals that came during a launch, on Python's main thread; true if one raised an exception.
bool signal_raised(void *context) {
  auto *state = static_cast<PyThreadState **>(context);
  PyEval_RestoreThread(*state);
  const bool raised = PyErr_CheckSignals() != 0;
  *state = PyEval_SaveThread();
  return raised;
}

// torch.get_num_threads() of this thread. Torch sets the OpenMP limit of a thread lazily, so the first launch on each
// thread asks torch; later ones ask OpenMP, which is where torch.set_num_threads puts it.
int thread_limit() {
  thread_local bool torch_asked = false;
  if (openmp.parallel && torch_asked) return openmp.in_parallel() ? 1 : openmp.max_threads();
  PyObject *number = PyObject_CallNoArgs(get_num_threads);
  if (!number) return -1;
  const long limit = PyLong_AsLong(number);
  Py_DECREF(number);
  if (limit == -1 && PyErr_Occurred()) return -1;
  torch_asked = true;
  if (openmp.parallel && openmp.in_parallel()) return 1;
  return static_cast<int>(limit);
}

PyObject *nested(PyObject *value, const std::vector<Py_ssize_t> &path) {
  for (size_t depth = 1; depth < path.size(); ++depth) {
    if (!PyTuple_Check(value) || PyTuple_GET_SIZE(value) <= path[depth]) {
      PyErr_SetString(PyExc_TypeError, "a tuple of the kernel's signature got another value");
      return nullptr;
    }
    value = PyTuple_GET_ITEM(value, path[depth]);
  }
  return value;
}

// Puts the kernel's name and the argument in front of the message of the exception that is set.
void explain(const Launcher *self, size_t index) {
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyObject *text = value ? PyObject_Str(value) : nullptr;
  if (!text) PyErr_Clear();
  PyErr_Format(type, "kernel %U, argument %zd: %S", self->name, (*self->arguments)[index].path[0], text ? text : Py_None);
  Py_XDECREF(text);
  Py_XDECREF(type);
  Py_XDECREF(value);
  Py_XDECREF(trace);
}

bool read_grid(const Launcher *self, PyObject *const *sizes, int32_t *grid) {
  for (int axis = 0; axis < 3; ++axis) {
    int overflow = 0;
    const long size = PyLong_AsLongAndOverflow(sizes[axis], &overflow);
    if (size == -1 && PyErr_Occurred()) return false;
    if (overflow || size < 0 || size > INT32_MAX) {
      PyErr_Format(PyExc_ValueError, "kernel %U: grid size %S is not in [0, 2**31)", self->name, sizes[axis]);
      return false;
    }
    grid[axis] = static_cast<int32_t>(size);
  }
  // Two sizes have a product below 2**62; the third can take it beyond int64.
  const int64_t plane = int64_t{grid[0]} * grid[1];
  if (plane > 0 && grid[2] > INT64_MAX / plane) {
    PyErr_Format(PyExc_ValueError, "kernel %U: a grid of %d x %d x %d has 2**63 program instances or more", self->name,
                 grid[0], grid[1], grid[2]);
    return false;
  }
  return true;
}

bool read_kernel(const Launcher *self, PyObject *function, Kernel &kernel) {
  kernel = reinterpret_cast<Kernel>(PyLong_AsVoidPtr(function));
  if (kernel) return true;
  if (!PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "kernel %U: the function is not loaded", self->name);
  return false;
}

PyObject *launch(PyObject *callable, PyObject *const *args, size_t flagged, PyObject *keywords) {
  auto *self = reinterpret_cast<Launcher *>(callable);
  const Py_ssize_t count = PyVectorcall_NARGS(flagged);
  if (keywords && PyTuple_GET_SIZE(keywords)) {
    PyErr_Format(PyExc_TypeError, "kernel %U: the launcher takes no keyword arguments", self->name);
    return nullptr;
  }
  const Py_ssize_t first = self->bound ? 0 : kFirstArgument;
  if (count <= first + self->max_index) {
    PyErr_Format(PyExc_TypeError, "kernel %U: %zd arguments given, %zd needed", self->name,
                 count < first ? Py_ssize_t{0} : count - first, self->max_index + 1);
    return nullptr;
  }
  int32_t read[3];
  Kernel kernel = self->bound;
  if (!kernel && (!read_grid(self, args + kGridX, read) || !read_kernel(self, args[kFunction], kernel))) return nullptr;
  const int32_t *const grid = self->bound ? self->grid : read;
  constexpr size_t kInline = 64;
  const auto &arguments = *self->arguments;
  uint64_t inline_slots[kInline];
  std::vector<uint64_t> heap_slots(arguments.size() > kInline ? arguments.size() : 0);
  uint64_t *const slots = heap_slots.empty() ? inline_slots : heap_slots.data();
  for (size_t i = 0; i < arguments.size(); ++i) {
    PyObject *value = args[first + arguments[i].path[0]];
    if (!self->flat) value = nested(value, arguments[i].path);
    if (!value || !store_argument(arguments[i].type, value, self->bound != nullptr, slots[i])) {
      explain(self, i);
      return nullptr;
    }
  }
  if (!self->bound && !call_hook(args[kEnterHook], args[kMetadata])) return nullptr;
  const Launch job = {kernel, slots, grid, int64_t{grid[0]} * grid[1] * grid[2], self->cost};
  std::string failure;
  Outcome outcome = Outcome::passed;
  if (job.programs > 0) {
    const double nanoseconds = self->cost * static_cast<double>(job.programs);
    int threads = self->serial ? 1 : worthwhile_threads(nanoseconds, job.programs, INT32_MAX);
    if (threads > 1) {
      const int limit = thread_limit();
      if (limit < 0) return nullptr;
      threads = worthwhile_threads(nanoseconds, job.programs, limit);
    }
    if (nanoseconds < kKeepGilBelow) {
      outcome = run_launch(job, threads, {}, failure);
    } else {
      PyThreadState *state = PyEval_SaveThread();
      outcome = run_launch(job, threads, {signal_raised, &state}, failure);
      PyEval_RestoreThread(state);
    }
  }
  if (outcome == Outcome::stopped) return nullptr;  // with the exception of the signal's handler
  if (outcome == Outcome::failed) {
    PyErr_Format(assertion_error, "kernel %U: device-side assertion failed: %s", self->name, failure.c_str());
    return nullptr;
  }
  if (!self->bound && !call_hook(args[kExitHook], args[kMetadata])) return nullptr;
  Py_RETURN_NONE;
}

bool read_path(PyObject *position, std::vector<Py_ssize_t> &path) {
  if (PyLong_Check(position)) {
    path.push_back(PyLong_AsSsize_t(position));
  } else if (PyTuple_Check(position) && PyTuple_GET_SIZE(position) > 0) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(position); ++i)
      path.push_back(PyLong_AsSsize_t(PyTuple_GET_ITEM(position, i)));
  } else {
    PyErr_SetString(PyExc_TypeError, "a position is an int or a non-empty tuple of ints");
    return false;
  }
  if (PyErr_Occurred()) return false;
  for (Py_ssize_t index : path)
    if (index < 0) {
      PyErr_SetString(PyExc_ValueError, "a position is not negative");
      return false;
    }
  return true;
}

int launcher_init(PyObject *object, PyObject *args, PyObject *keywords) {
  auto *self = reinterpret_cast<Launcher *>(object);
  if (!assertion_error) {
    PyErr_SetString(PyExc_RuntimeError, "torchport.runtime._native is not configured; import torchport.runtime.launcher");
    return -1;
  }
  static const char *names[] = {"name", "signature", "positions", "cost", "serial", nullptr};
  PyObject *name, *signature, *positions;
  double cost;
  int serial;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "UO!O!dp", const_cast<char **>(names), &name, &PyList_Type,
                                   &signature, &PyList_Type, &positions, &cost, &serial))
    return -1;
  if (PyList_GET_SIZE(signature) != PyList_GET_SIZE(positions)) {
    PyErr_Format(PyExc_ValueError, "kernel %U: %zd types for %zd positions", name, PyList_GET_SIZE(signature),
                 PyList_GET_SIZE(positions));
    return -1;
  }
  self->arguments->clear();
  self->max_index = -1;
  self->flat = true;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(signature); ++i) {
    Argument argument;
    const char *spelling = PyUnicode_AsUTF8(PyList_GET_ITEM(signature, i));
    if (!spelling || !read_path(PyList_GET_ITEM(positions, i), argument.path)) return -1;
    if (!parse_type(spelling, argument.type)) {
      PyErr_Format(PyExc_ValueError, "kernel %U: argument %zd has type %s, which is not a pointer, an integer or a float",
                   name, i, spelling);
      return -1;
    }
    self->flat = self->flat && argument.path.size() == 1;
    self->max_index = std::max(self->max_index, argument.path[0]);
    self->arguments->push_back(std::move(argument));
  }
  Py_XSETREF(self->name, Py_NewRef(name));
  self->cost = cost;
  self->serial = serial != 0;
  return 0;
}

PyObject *launcher_new(PyTypeObject *type, PyObject *, PyObject *) {
  auto *self = reinterpret_cast<Launcher *>(type->tp_alloc(type, 0));
  if (!self) return nullptr;
  self->vectorcall = launch;
  self->arguments = new std::vector<Argument>;
  self->name = PyUnicode_FromString("?");
  self->max_index = -1;
  self->flat = true;
  self->bound = nullptr;
  return reinterpret_cast<PyObject *>(self);
}

void launcher_dealloc(PyObject *object) {
  auto *self = reinterpret_cast<Launcher *>(object);
  delete self->arguments;
  Py_XDECREF(self->name);
  Py_TYPE(object)->tp_free(object);
}

PyObject *bind(PyObject *object, PyObject *const *args, Py_ssize_t count) {
  auto *self = reinterpret_cast<Launcher *>(object);
  if (count != 4) {
    PyErr_SetString(PyExc_TypeError, "bind(grid_x, grid_y, grid_z, function)");
    return nullptr;
  }
  int32_t grid[3];
  Kernel kernel;
  if (!read_grid(self, args, grid) || !read_kernel(self, args[3], kernel)) return nullptr;
  auto *found = reinterpret_cast<Launcher *>(launcher_new(Py_TYPE(object), nullptr, nullptr));
  if (!found) return nullptr;
  *found->arguments = *self->arguments;
  Py_XSETREF(found->name, Py_NewRef(self->name));
  found->cost = self->cost;
  found->max_index = self->max_index;
  found->serial = self->serial;
  found->flat = self->flat;
  found->bound = kernel;
  std::copy(grid, grid + 3, found->grid);
  return reinterpret_cast<PyObject *>(found);
}

PyMethodDef launcher_methods[] = {
    {"bind", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(bind)), METH_FASTCALL,
     "bind(grid_x, grid_y, grid_z, function) -> Launcher\n\n"
     "A launcher of that function over that grid, called with the kernel's arguments alone. The caller knows that\n"
     "tensors are in CPU memory."},
    {nullptr, nullptr, 0, nullptr}};

PyMemberDef launcher_members[] = {
    {"name", T_OBJECT_EX, offsetof(Launcher, name), READONLY, "The kernel's name, used in messages."},
    {"cost", T_DOUBLE, offsetof(Launcher, cost), 0, "Estimated nanoseconds of one program instance."},
    {"serial", T_BOOL, offsetof(Launcher, serial), READONLY, "Program instances run in order on one thread."},
    {nullptr, 0, 0, 0, nullptr}};

PyTypeObject launcher_type = {PyVarObject_HEAD_INIT(nullptr, 0)};

}  // namespace

bool add_launcher_type(PyObject *module) {
  launcher_type.tp_name = "torchport.runtime._native.Launcher";
  launcher_type.tp_basicsize = sizeof(Launcher);
  launcher_type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL;
  launcher_type.tp_doc =
      "Launcher(name, signature, positions, cost, serial)\n\n"
      "Calls one kernel over a grid. `signature`: Triton spellings of the non-constexpr arguments; `positions`: where\n"
      "each is in the call's arguments (an int, or a tuple of ints into nested tuples); `cost`: nanoseconds of one\n"
      "program instance; `serial`: run them in order on one thread. Called as Triton calls a launcher: (grid_x,\n"
      "grid_y, grid_z, stream, function, packed_metadata, launch_metadata, enter_hook, exit_hook, *args).\n"
      "Raises TypeError or ValueError for a bad argument, KernelAssertionError for a failed device-side assertion.";
  launcher_type.tp_vectorcall_offset = offsetof(Launcher, vectorcall);
  launcher_type.tp_call = PyVectorcall_Call;
  launcher_type.tp_new = launcher_new;
  launcher_type.tp_init = launcher_init;
  launcher_type.tp_dealloc = launcher_dealloc;
  launcher_type.tp_members = launcher_members;
  launcher_type.tp_methods = launcher_methods;
  if (!calls_name && !(calls_name = PyUnicode_InternFromString("calls"))) return false;
  if (PyType_Ready(&launcher_type) < 0) return false;
  return PyModule_AddObjectRef(module, "Launcher", reinterpret_cast<PyObject *>(&launcher_type)) == 0;
}

int threads_for(double nanoseconds, int64_t parts) {
  if (worthwhile_threads(nanoseconds, parts, INT32_MAX) == 1) return 1;
  const int limit = thread_limit();
  return limit < 0 ? -1 : worthwhile_threads(nanoseconds, parts, limit);
}

void set_launcher_hooks(PyObject *threads, PyObject *error) {
  Py_XSETREF(get_num_threads, Py_NewRef(threads));
  Py_XSETREF(assertion_error, Py_NewRef(error));
}

}  // namespace torchport

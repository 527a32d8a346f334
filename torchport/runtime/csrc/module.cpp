// The extension module torchport.runtime._native. It includes and links nothing of torch.
#include "native.h"

namespace torchport {
namespace {

template <typename F>
void set_address(F &slot, unsigned long long address) {
  slot = reinterpret_cast<F>(static_cast<uintptr_t>(address));
}

template <typename F>
bool add_address(PyObject *functions, const char *name, F *function) {
  PyObject *address = PyLong_FromVoidPtr(reinterpret_cast<void *>(function));
  const bool added = address && PyDict_SetItemString(functions, name, address) == 0;
  Py_XDECREF(address);
  return added;
}

PyObject *configure(PyObject *, PyObject *args, PyObject *keywords) {
  static const char *names[] = {"tensor_types", "exchange_api", "get_num_threads", "assertion_error", "openmp",
                                "address_of_tensor", nullptr};
  unsigned long long address_of_tensor;
  PyObject *types, *api, *threads, *error, *addresses;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "O!OOOO!K", const_cast<char **>(names), &PyTuple_Type, &types, &api,
                                   &threads, &error, &PyTuple_Type, &addresses, &address_of_tensor))
    return nullptr;
  unsigned long long found[5] = {};
  if (PyTuple_GET_SIZE(addresses) != 0 &&
      !PyArg_ParseTuple(addresses, "KKKKK", &found[0], &found[1], &found[2], &found[3], &found[4]))
    return nullptr;
  set_address(openmp.parallel, found[0]);
  set_address(openmp.max_threads, found[1]);
  set_address(openmp.in_parallel, found[2]);
  set_address(openmp.thread_num, found[3]);
  set_address(openmp.num_threads, found[4]);
  set_launcher_hooks(threads, error);
  if (!init_arguments(types, api, static_cast<uintptr_t>(address_of_tensor))) return nullptr;
  Py_RETURN_NONE;
}

PyObject *thread_count(PyObject *, PyObject *args) {
  double nanoseconds;
  long long programs;
  int limit;
  if (!PyArg_ParseTuple(args, "dLi", &nanoseconds, &programs, &limit)) return nullptr;
  return PyLong_FromLong(worthwhile_threads(nanoseconds, programs, limit));
}

PyMethodDef methods[] = {
    {"configure", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(configure)), METH_VARARGS | METH_KEYWORDS,
     "configure(tensor_types, exchange_api, get_num_threads, assertion_error, openmp, address_of_tensor)\n\n"
     "Hands over what belongs to torch: the exact tensor types, their DLPack exchange capsule or None,\n"
     "torch.get_num_threads, the exception class for assertions, and the addresses of GOMP_parallel,\n"
     "omp_get_max_threads, omp_in_parallel, omp_get_thread_num, omp_get_num_threads (or an empty tuple), and of\n"
     "Inductor's function from tensor to data address, or 0."},
    {"summarize", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(summarize)), METH_FASTCALL,
     "summarize(address, element, sizes, strides, detailed) -> (str, int)\n\n"
     "What a tensor holds, as JSON, and how many of its elements are not finite. `element`: its type as numbered in\n"
     "torchport.numerics.runs.summary; sizes and strides in elements; `detailed`: with histogram, sample and largest."},
    {"summarize_all", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(summarize_all)), METH_FASTCALL,
     "summarize_all(tensors, plans) -> (str, int)\n\n"
     "The same of several tensors in CPU memory, without details, as a JSON list. `plans`: of each (element, sizes,\n"
     "strides), or None for a null."},
    {"inputs_of", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(inputs_of)), METH_FASTCALL,
     "inputs_of(tensors, constants) -> capsule or None\n\n"
     "What tensors are: device, dtype, sizes and strides, and of the constants (places in the list) the address. None\n"
     "where one is no plain tensor."},
    {"inputs_changed", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(inputs_changed)), METH_FASTCALL,
     "inputs_changed(inputs, tensors) -> list\n\nThe places of tensors that are not what they were for inputs_of."},
    {"reserve_addresses", reserve_addresses, METH_O,
     "reserve_addresses(nbytes) -> int\n\nThe first of so many addresses that nothing else gets; reading one is a fault."},
    {"size_class", size_class, METH_O,
     "size_class(nbytes) -> int\n\nThe size of the buffer for so many bytes, at most an eighth larger, so that buffers can\n"
     "be used again."},
    {"storage_arena", storage_arena, METH_NOARGS,
     "storage_arena() -> capsule\n\nWhat is known of a device's storages: ranges of addresses that none has, and counts."},
    {"storage_offer", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(storage_offer)), METH_FASTCALL,
     "storage_offer(arena, address, nbytes)\n\nAdd a range of addresses of the size of a buffer for `nbytes`."},
    {"storage_take", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(storage_take)), METH_FASTCALL,
     "storage_take(arena, device, code, bits, sizes, strides) -> capsule or int\n\n"
     "A DLPack capsule of a tensor on torch's extension device: of that number, with an element type as DLPack names it,\n"
     "sizes and strides in elements. Where no range of its size is unused, how many bytes it needs. When its storage\n"
     "dies, the range is unused again."},
    {"storage_unused", storage_unused, METH_O,
     "storage_unused(arena) -> list\n\nTake out all unused ranges: (address, size) of each."},
    {"storage_reset_peak", storage_reset_peak, METH_O,
     "storage_reset_peak(arena)\n\nLet the most bytes so far be those of now."},
    {"storage_bytes", storage_bytes, METH_O,
     "storage_bytes(arena) -> (int, int, int)\n\nBytes of the storages that live, the most so far, and bytes of unused "
     "ranges."},
    {"thread_count", thread_count, METH_VARARGS,
     "thread_count(nanoseconds, programs, limit) -> int\n\nThreads a launch of that estimated length is split over."},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "torchport.runtime._native",
                          "Launching compiled kernels: arguments, threads, assertions.", -1, methods};

}  // namespace
}  // namespace torchport

PyMODINIT_FUNC PyInit__native() {
  PyObject *module = PyModule_Create(&torchport::definition);
  if (!module) return nullptr;
  // What a kernel's object may name of this extension.
  PyObject *functions = PyDict_New();
  if (!functions || !torchport::add_address(functions, "torchport_assert_fail", torchport::torchport_assert_fail) ||
      !torchport::add_address(functions, "torchport_print", torchport::torchport_print) ||
      PyModule_AddObjectRef(module, "kernel_functions", functions) < 0 || !torchport::add_launcher_type(module) ||
      !torchport::add_sanitizer(module, functions)) {
    Py_XDECREF(functions);
    Py_DECREF(module);
    return nullptr;
  }
  Py_DECREF(functions);
  return module;
}

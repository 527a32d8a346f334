// The sanitizer's side of torchport.runtime._native: one capsule a launch, filled before it and read after it.
#include "native.h"
#include "sanitizer.h"

#include <memory>
#include <utility>

namespace torchport {
namespace sanitizer {
namespace {

constexpr const char *kCapsule = "torchport.sanitizer";

Sanitizer *launch_of(PyObject *capsule) { return static_cast<Sanitizer *>(PyCapsule_GetPointer(capsule, kCapsule)); }

bool read_sites(PyObject *list, Sanitizer &launch) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i) {
    Site site;
    PyObject *arguments;
    if (!PyArg_ParseTuple(PyList_GET_ITEM(list, i), "iIIO!", &site.number, &site.effects, &site.bytes,
                          &PyTuple_Type, &arguments))
      return false;
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(arguments); ++k) {
      const long index = PyLong_AsLong(PyTuple_GET_ITEM(arguments, k));
      if (index < 0 || static_cast<size_t>(index) >= launch.arguments.size()) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a site names an argument that there is not");
        return false;
      }
      site.arguments.push_back(static_cast<int>(index));
    }
    launch.sites.push_back(std::move(site));
  }
  return true;
}

bool read_memory(PyObject *list, Sanitizer &launch) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i) {
    unsigned long long begin, end, written;
    unsigned granule;
    if (!PyArg_ParseTuple(PyList_GET_ITEM(list, i), "KKKI", &begin, &end, &written, &granule)) return false;
    Memory one = {begin, end, reinterpret_cast<uint8_t *>(static_cast<uintptr_t>(written)), 0, nullptr, nullptr};
    if (granule && end > begin && launch.checks & kRace && !launch.watch_races(one, granule)) {
      PyErr_NoMemory();
      return false;
    }
    launch.memory.push_back(one);
  }
  return true;
}

bool read_arguments(PyObject *list, Sanitizer &launch) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i) {
    int memory;
    unsigned long long low, high;
    if (!PyArg_ParseTuple(PyList_GET_ITEM(list, i), "iKK", &memory, &low, &high)) return false;
    launch.arguments.push_back({memory, low, high});
  }
  return true;
}

PyObject *sanitizer_begin(PyObject *, PyObject *args) {
  PyObject *sites, *memory, *arguments;
  long long width, height;
  auto launch = std::make_unique<Sanitizer>();
  if (!PyArg_ParseTuple(args, "O!O!O!ILL", &PyList_Type, &sites, &PyList_Type, &memory, &PyList_Type, &arguments,
                        &launch->checks, &width, &height))
    return nullptr;
  launch->width = width;
  launch->height = height;
  if (!read_arguments(arguments, *launch) || !read_sites(sites, *launch) || !read_memory(memory, *launch))
    return nullptr;
  PyObject *capsule = PyCapsule_New(launch.get(), kCapsule, [](PyObject *self) { delete launch_of(self); });
  if (capsule) launch.release();
  return capsule;
}

PyObject *sanitizer_address(PyObject *, PyObject *capsule) {
  Sanitizer *launch = launch_of(capsule);
  return launch ? PyLong_FromVoidPtr(launch) : nullptr;
}

PyObject *sanitizer_findings(PyObject *, PyObject *capsule) {
  const Sanitizer *launch = launch_of(capsule);
  if (!launch) return nullptr;
  PyObject *list = PyList_New(0);
  for (const auto &[key, finding] : launch->findings) {
    const auto &[check, site, argument, other_site] = key;
    PyObject *item = Py_BuildValue(
        "(IiiiK(iii)LnL)", check, site, argument, other_site, static_cast<unsigned long long>(finding.address),
        finding.program[0], finding.program[1], finding.program[2], static_cast<long long>(finding.other_program),
        static_cast<Py_ssize_t>(finding.elements.size()), static_cast<long long>(finding.programs));
    if (!list || !item || PyList_Append(list, item) < 0) {
      Py_XDECREF(item);
      Py_XDECREF(list);
      return nullptr;
    }
    Py_DECREF(item);
  }
  return list;
}

PyMethodDef methods[] = {
    {"sanitizer_begin", sanitizer_begin, METH_VARARGS,
     "sanitizer_begin(sites, memory, arguments, checks, grid_x, grid_y) -> capsule\n\n"
     "What the checks of one launch need. `sites`: (number, effects, bytes, argument indices); `memory`: (begin, end,\n"
     "address of the bytes that say what is written or 0, bytes watched together for races, a power of two, or 0);\n"
     "`arguments`: (index into `memory` or -1, lowest address, end); `checks`: 1 address, 2 uninitialized, 4 race."},
    {"sanitizer_address", sanitizer_address, METH_O,
     "sanitizer_address(capsule) -> int\n\nWhat the kernel gets as its last argument."},
    {"sanitizer_findings", sanitizer_findings, METH_O,
     "sanitizer_findings(capsule) -> list\n\n"
     "(check, site, argument, other site or -1, address, (x, y, z), other program or -1, elements, programs), in a\n"
     "fixed order; elements are counted up to 2**20."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace
}  // namespace sanitizer

bool add_sanitizer(PyObject *module, PyObject *functions) {
  const std::pair<const char *, void *> called[] = {
      {"torchport_sanitizer_enter", reinterpret_cast<void *>(&sanitizer::torchport_sanitizer_enter)},
      {"torchport_sanitizer_check", reinterpret_cast<void *>(&sanitizer::torchport_sanitizer_check)}};
  for (const auto &[name, function] : called) {
    PyObject *address = PyLong_FromVoidPtr(function);
    const bool added = address && PyDict_SetItemString(functions, name, address) == 0;
    Py_XDECREF(address);
    if (!added) return false;
  }
  return PyModule_AddFunctions(module, sanitizer::methods) == 0;
}

}  // namespace torchport

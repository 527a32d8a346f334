// Storages of devices whose memory has no addresses here: ranges of reserved addresses stand for them, and torch gets
// them as DLPack capsules. Structures are those of dlpack.h 0.8 (github.com/dmlc/dlpack), which torch reads.
#include "native.h"

#include <mutex>
#include <new>

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <sys/mman.h>
#endif

namespace torchport {
namespace {

constexpr int32_t kExtensionDevice = 12;  // kDLExtDev, torch's PrivateUse1

struct DLTensor {
  void *data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};

struct DLManagedTensor {
  DLTensor tensor;
  void *context;
  void (*deleter)(DLManagedTensor *);
};

// Addresses whose storages are gone. Never destroyed: storages die after the interpreter too.
struct Freed {
  std::mutex lock;
  std::vector<uintptr_t> addresses;
};

Freed &freed() {
  static Freed *const all = new Freed;
  return *all;
}

// Called by torch when a storage dies, in any thread, with or without the GIL.
void forget(DLManagedTensor *managed) {
  {
    Freed &all = freed();
    const std::lock_guard<std::mutex> hold(all.lock);
    all.addresses.push_back(reinterpret_cast<uintptr_t>(managed->tensor.data));
  }
  delete[] managed->tensor.shape;
  delete managed;
}

void drop_unused(PyObject *capsule) {
  if (!PyCapsule_IsValid(capsule, "dltensor")) return;  // torch took it, and renamed it
  auto *managed = static_cast<DLManagedTensor *>(PyCapsule_GetPointer(capsule, "dltensor"));
  managed->deleter(managed);
}

bool integers(PyObject *sequence, Py_ssize_t count, int64_t *out) {
  for (Py_ssize_t i = 0; i < count; ++i) {
    out[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(sequence, i));
    if (out[i] == -1 && PyErr_Occurred()) return false;
  }
  return true;
}

}  // namespace

PyObject *reserve_addresses(PyObject *, PyObject *size) {
  const unsigned long long bytes = PyLong_AsUnsignedLongLong(size);
  if (PyErr_Occurred()) return nullptr;
#ifdef _WIN32
  void *address = VirtualAlloc(nullptr, bytes, MEM_RESERVE, PAGE_NOACCESS);
  if (!address) return PyErr_SetFromWindowsErr(0);
#else
  void *address = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) return PyErr_SetFromErrno(PyExc_OSError);
#endif
  return PyLong_FromVoidPtr(address);
}

PyObject *storage_capsule(PyObject *, PyObject *const *args, Py_ssize_t given) {
  if (given != 6 || !PyTuple_Check(args[4]) || !PyTuple_Check(args[5]) ||
      PyTuple_GET_SIZE(args[4]) != PyTuple_GET_SIZE(args[5]))
    return PyErr_Format(PyExc_TypeError, "storage_capsule(address, device, code, bits, sizes, strides)");
  void *address = PyLong_AsVoidPtr(args[0]);
  const long device = PyLong_AsLong(args[1]), code = PyLong_AsLong(args[2]), bits = PyLong_AsLong(args[3]);
  if (PyErr_Occurred()) return nullptr;
  const Py_ssize_t rank = PyTuple_GET_SIZE(args[4]);
  auto *numbers = new (std::nothrow) int64_t[2 * rank + 1];
  auto *managed = new (std::nothrow) DLManagedTensor{};
  if (!numbers || !managed || !integers(args[4], rank, numbers) || !integers(args[5], rank, numbers + rank)) {
    delete[] numbers;
    delete managed;
    return PyErr_Occurred() ? nullptr : PyErr_NoMemory();
  }
  managed->tensor = {address, kExtensionDevice, static_cast<int32_t>(device), static_cast<int32_t>(rank),
                     static_cast<uint8_t>(code), static_cast<uint8_t>(bits), 1, numbers, numbers + rank, 0};
  managed->deleter = forget;
  PyObject *capsule = PyCapsule_New(managed, "dltensor", drop_unused);
  if (!capsule) {
    delete[] numbers;
    delete managed;
  }
  return capsule;
}

PyObject *freed_addresses(PyObject *, PyObject *) {
  std::vector<uintptr_t> addresses;
  {
    Freed &all = freed();
    const std::lock_guard<std::mutex> hold(all.lock);
    addresses.swap(all.addresses);
  }
  PyObject *list = PyList_New(static_cast<Py_ssize_t>(addresses.size()));
  for (size_t i = 0; list && i < addresses.size(); ++i) {
    PyObject *address = PyLong_FromSize_t(addresses[i]);
    if (!address) {
      Py_CLEAR(list);
      break;
    }
    PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), address);
  }
  return list;
}

}  // namespace torchport

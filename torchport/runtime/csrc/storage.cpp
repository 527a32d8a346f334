// Storages of devices whose memory has no addresses here: ranges of reserved addresses stand for them, and torch gets
// them as DLPack capsules. Structures are those of dlpack.h 0.8 (github.com/dmlc/dlpack), which torch reads.
#include "native.h"

#include <cstdlib>
#include <mutex>
#include <new>
#include <unordered_map>

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

// A device's ranges of addresses that no storage has now, by their sizes, and its counts. Never destroyed: storages die
// after the interpreter too.
struct Arena {
  std::mutex lock;
  std::unordered_map<int64_t, std::vector<uintptr_t>> unused;
  int64_t allocated = 0, peak = 0, waiting = 0;  // bytes of living storages, the most so far, bytes of unused ranges
};

constexpr const char *kArena = "torchport.arena";

Arena *arena_of(PyObject *capsule) { return static_cast<Arena *>(PyCapsule_GetPointer(capsule, kArena)); }

// The size of the range for so many bytes: at most an eighth larger, so that ranges can be used again.
int64_t size_class_of(int64_t nbytes) {
  int64_t step = 256;
  while (step < nbytes >> 4) step *= 2;  // to the power of two that is an eighth to a sixteenth of nbytes
  return nbytes < step ? step : (nbytes + step - 1) / step * step;
}

// What torch holds of a storage; sizes and strides follow it in memory.
struct Held {
  DLManagedTensor managed;
  Arena *arena;
  int64_t nbytes;
  int64_t numbers[1];
};

// Called by torch when a storage dies, in any thread, with or without the GIL.
void forget(DLManagedTensor *managed) {
  auto *held = reinterpret_cast<Held *>(managed);
  const int64_t size = size_class_of(held->nbytes);
  {
    const std::lock_guard<std::mutex> hold(held->arena->lock);
    held->arena->unused[size].push_back(reinterpret_cast<uintptr_t>(managed->tensor.data));
    held->arena->waiting += size;
    held->arena->allocated -= held->nbytes;
  }
  std::free(held);
}

void drop_unused(PyObject *capsule) {
  if (!PyCapsule_IsValid(capsule, "dltensor")) return;  // torch took it, and renamed it
  auto *managed = static_cast<DLManagedTensor *>(PyCapsule_GetPointer(capsule, "dltensor"));
  managed->deleter(managed);
}

bool integers(PyObject *sequence, Py_ssize_t count, int64_t *out) {
  for (Py_ssize_t i = 0; i < count; ++i) {
    out[i] = PyLong_AsLongLong(PySequence_Fast_GET_ITEM(sequence, i));
    if (out[i] == -1 && PyErr_Occurred()) return false;
  }
  return true;
}

constexpr int64_t kMost = INT64_MAX / 4;

// Bytes from the first to the last element, kMost if they are more; -1 with a Python exception for negative numbers.
int64_t extent(const int64_t *sizes, const int64_t *strides, Py_ssize_t rank, int64_t itemsize) {
  int64_t last = 0;
  bool empty = false;
  for (Py_ssize_t i = 0; i < rank; ++i) {
    if (sizes[i] < 0 || strides[i] < 0) {
      PyErr_SetString(PyExc_RuntimeError, "a tensor's sizes and strides must not be negative");
      return -1;
    }
    empty |= sizes[i] == 0;
    if (sizes[i] < 2) continue;
    if (strides[i] > (kMost - last) / (sizes[i] - 1)) last = kMost;
    else last += (sizes[i] - 1) * strides[i];
  }
  return empty ? 0 : last >= kMost / itemsize ? kMost : (last + 1) * itemsize;
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

PyObject *size_class(PyObject *, PyObject *nbytes) {
  const long long bytes = PyLong_AsLongLong(nbytes);
  if (bytes == -1 && PyErr_Occurred()) return nullptr;
  return PyLong_FromLongLong(size_class_of(bytes));
}

PyObject *storage_arena(PyObject *, PyObject *) {
  auto *arena = new (std::nothrow) Arena;
  return arena ? PyCapsule_New(arena, kArena, nullptr) : PyErr_NoMemory();
}

PyObject *storage_offer(PyObject *, PyObject *const *args, Py_ssize_t given) {
  if (given != 3) return PyErr_Format(PyExc_TypeError, "storage_offer(arena, address, nbytes)");
  Arena *arena = arena_of(args[0]);
  if (!arena) return nullptr;
  void *address = PyLong_AsVoidPtr(args[1]);
  const long long nbytes = PyLong_AsLongLong(args[2]);
  if (PyErr_Occurred()) return nullptr;
  const int64_t size = size_class_of(nbytes);
  const std::lock_guard<std::mutex> hold(arena->lock);
  arena->unused[size].push_back(reinterpret_cast<uintptr_t>(address));
  arena->waiting += size;
  Py_RETURN_NONE;
}

PyObject *storage_take(PyObject *, PyObject *const *args, Py_ssize_t given) {
  if (given != 6) return PyErr_Format(PyExc_TypeError, "storage_take(arena, device, code, bits, sizes, strides)");
  Arena *arena = arena_of(args[0]);
  const long device = PyLong_AsLong(args[1]), code = PyLong_AsLong(args[2]), bits = PyLong_AsLong(args[3]);
  if (PyErr_Occurred()) return nullptr;
  PyObject *sizes = PySequence_Fast(args[4], "sizes must be a sequence"), *strides = nullptr;
  if (sizes) strides = PySequence_Fast(args[5], "strides must be a sequence");
  const Py_ssize_t rank = sizes ? PySequence_Fast_GET_SIZE(sizes) : 0;
  Held *held = nullptr;
  if (strides && PySequence_Fast_GET_SIZE(strides) != rank)
    PyErr_SetString(PyExc_ValueError, "there must be as many strides as sizes");
  else if (strides && !(held = static_cast<Held *>(std::malloc(sizeof(Held) + 2 * rank * sizeof(int64_t)))))
    PyErr_NoMemory();
  const bool read = held && integers(sizes, rank, held->numbers) && integers(strides, rank, held->numbers + rank);
  Py_XDECREF(sizes);
  Py_XDECREF(strides);
  if (!read) {
    std::free(held);
    return nullptr;
  }
  const int64_t nbytes = extent(held->numbers, held->numbers + rank, rank, bits / 8);
  if (nbytes < 0) {
    std::free(held);
    return nullptr;
  }
  const int64_t size = size_class_of(nbytes);
  uintptr_t address = 0;
  {
    const std::lock_guard<std::mutex> hold(arena->lock);
    const auto found = arena->unused.find(size);
    if (found != arena->unused.end() && !found->second.empty()) {
      address = found->second.back();
      found->second.pop_back();
      arena->waiting -= size;
      arena->allocated += nbytes;
      if (arena->allocated > arena->peak) arena->peak = arena->allocated;
    }
  }
  if (!address) {
    std::free(held);
    return PyLong_FromLongLong(nbytes);
  }
  held->managed.tensor = {reinterpret_cast<void *>(address), kExtensionDevice, static_cast<int32_t>(device),
                          static_cast<int32_t>(rank), static_cast<uint8_t>(code), static_cast<uint8_t>(bits), 1,
                          held->numbers, held->numbers + rank, 0};
  held->managed.context = nullptr;
  held->managed.deleter = forget;
  held->arena = arena;
  held->nbytes = nbytes;
  PyObject *capsule = PyCapsule_New(&held->managed, "dltensor", drop_unused);
  if (!capsule) forget(&held->managed);
  return capsule;
}

PyObject *storage_unused(PyObject *, PyObject *capsule) {
  Arena *arena = arena_of(capsule);
  if (!arena) return nullptr;
  std::unordered_map<int64_t, std::vector<uintptr_t>> unused;
  {
    const std::lock_guard<std::mutex> hold(arena->lock);
    unused.swap(arena->unused);
    arena->waiting = 0;
  }
  PyObject *list = PyList_New(0);
  for (const auto &[size, addresses] : unused)
    for (size_t i = 0; list && i < addresses.size(); ++i) {
      PyObject *pair = Py_BuildValue("(KL)", static_cast<unsigned long long>(addresses[i]), static_cast<long long>(size));
      if (!pair || PyList_Append(list, pair) < 0) Py_CLEAR(list);
      Py_XDECREF(pair);
    }
  return list;
}

PyObject *storage_bytes(PyObject *, PyObject *capsule) {
  Arena *arena = arena_of(capsule);
  if (!arena) return nullptr;
  const std::lock_guard<std::mutex> hold(arena->lock);
  return Py_BuildValue("(LLL)", static_cast<long long>(arena->allocated), static_cast<long long>(arena->peak),
                       static_cast<long long>(arena->waiting));
}

PyObject *storage_reset_peak(PyObject *, PyObject *capsule) {
  Arena *arena = arena_of(capsule);
  if (!arena) return nullptr;
  const std::lock_guard<std::mutex> hold(arena->lock);
  arena->peak = arena->allocated;
  Py_RETURN_NONE;
}

}  // namespace torchport

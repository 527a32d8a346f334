// Python arguments -> the 8-byte slots of the kernel ABI.
#include "dlpack.h"
#include "native.h"

#include <cstdio>
#include <cstring>
#include <exception>

namespace torchport {
namespace {

const DLPackExchangeAPI *exchange = nullptr;
PyTypeObject *plain_types[2] = {nullptr, nullptr};  // torch.Tensor and Parameter: no __torch_function__ of a user's
PyObject *data_ptr_name = nullptr, *is_cpu_name = nullptr;

// What Inductor's own C++ code reads addresses with: a third of the time of the exchange API, but it tells no device.
// Throws where a tensor has no storage.
void *(*tensor_address)(PyObject *tensor) = nullptr;

bool refuse_device(PyObject *tensor) {
  PyObject *meta = PyObject_GetAttrString(tensor, "is_meta");
  if (!meta) return false;
  Py_DECREF(meta);  // True and False outlive this
  PyErr_SetString(PyExc_ValueError, meta == Py_True ? "the tensor is on the meta device and has no memory; give one with data"
                                                    : "the tensor is not in CPU memory; move it with .cpu()");
  return false;
}

// Where the first mapping of this process begins. An address below it is null, or counted from null.
uint64_t first_mapping() {
  unsigned long long first = 0x10000;  // Linux maps nothing below (vm.mmap_min_addr)
  if (FILE *maps = std::fopen("/proc/self/maps", "r")) {
    if (std::fscanf(maps, "%llx-", &first) != 1) first = 0x10000;
    std::fclose(maps);
  }
  return first;
}
const uint64_t lowest_address = first_mapping();

// Whether a tensor with such an address may be passed: it has no elements, or its storage has memory after all.
bool has_memory(PyObject *tensor) {
  PyObject *count = PyObject_CallMethod(tensor, "numel", nullptr);
  const long long elements = count ? PyLong_AsLongLong(count) : -1;
  Py_XDECREF(count);
  if (elements == -1 && PyErr_Occurred()) return false;
  if (elements == 0) return true;
  PyObject *storage = PyObject_CallMethod(tensor, "untyped_storage", nullptr);
  PyObject *address = storage ? PyObject_CallMethod(storage, "data_ptr", nullptr) : nullptr;
  const bool memory = address && PyObject_IsTrue(address) == 1;
  Py_XDECREF(storage);
  Py_XDECREF(address);
  if (memory) return true;
  PyErr_Format(PyExc_ValueError,
               "the tensor has %lld elements and no memory: its storage was resized to 0, as sharding of parameters does, "
               "or it is a fake or meta tensor; give it its memory back first",
               elements);
  return false;
}

bool store_pointer(PyObject *value, bool on_device, uint64_t &slot) {
  PyTypeObject *type = Py_TYPE(value);
  if (on_device && tensor_address && (type == plain_types[0] || type == plain_types[1])) {
    try {
      slot = reinterpret_cast<uint64_t>(tensor_address(value));
    } catch (const std::exception &error) {
      PyErr_SetString(PyExc_RuntimeError, error.what());
      return false;
    }
    return slot >= lowest_address || has_memory(value);
  }
  if (exchange && (type == plain_types[0] || type == plain_types[1])) {
    DLTensor view;
    if (describe_tensor(value, view)) {
      if (view.device_type != kDLCPU && view.device_type != kDLCUDAHost) return refuse_device(value);
      slot = reinterpret_cast<uint64_t>(view.data) + view.byte_offset;
      return slot >= lowest_address || has_memory(value);
    }
    PyErr_Clear();  // a dtype or layout DLPack has no word for: data_ptr() knows
  }
  if (value == Py_None) {
    slot = 0;
    return true;
  }
  PyObject *address;
  const bool is_tensor = PyObject_TypeCheck(value, plain_types[0]);
  if (PyLong_Check(value)) {
    address = Py_NewRef(value);
  } else {
    if (is_tensor) {
      PyObject *on_cpu = PyObject_GetAttr(value, is_cpu_name);
      if (!on_cpu) return false;
      Py_DECREF(on_cpu);  // True and False outlive this
      if (on_cpu != Py_True) return refuse_device(value);
    }
    PyObject *self[1] = {value};
    address = PyObject_VectorcallMethod(data_ptr_name, self, 1 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr);
    if (!address) return false;
  }
  slot = PyLong_AsUnsignedLongLongMask(address);
  Py_DECREF(address);
  if (slot == UINT64_MAX && PyErr_Occurred()) return false;
  return !is_tensor || slot >= lowest_address || has_memory(value);
}

// Round to nearest even, as Triton does: through fp32.
uint16_t to_bf16(double value) {
  float single = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &single, 4);
  if (single != single) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

bool store_float(Type type, PyObject *value, uint64_t &slot) {
  double number = PyFloat_CheckExact(value) ? PyFloat_AS_DOUBLE(value) : PyFloat_AsDouble(value);
  if (number == -1.0 && PyErr_Occurred()) return false;
  slot = 0;
  switch (type) {
    case Type::fp64: std::memcpy(&slot, &number, 8); return true;
    case Type::fp32: {
      float single = static_cast<float>(number);
      std::memcpy(&slot, &single, 4);
      return true;
    }
    case Type::bf16: slot = to_bf16(number); return true;
    default: {
      char bytes[2];  // raises OverflowError where the value is beyond fp16
#if PY_VERSION_HEX >= 0x030B0000
      if (PyFloat_Pack2(number, bytes, 1) < 0) return false;
#else
      if (_PyFloat_Pack2(number, reinterpret_cast<unsigned char *>(bytes), 1) < 0) return false;
#endif
      std::memcpy(&slot, bytes, 2);
      return true;
    }
  }
}

}  // namespace

bool describe_tensor(PyObject *tensor, DLTensor &out) {
  PyTypeObject *type = Py_TYPE(tensor);
  if (!exchange || (type != plain_types[0] && type != plain_types[1])) return false;
  return exchange->tensor_from_object(tensor, &out) == 0;
}

bool parse_type(const char *s, Type &out) {
  static constexpr struct {
    const char *name;
    Type type;
  } names[] = {{"i1", Type::i1},     {"u1", Type::i1},     {"i8", Type::i8},     {"i16", Type::i16},
               {"i32", Type::i32},   {"i64", Type::i64},   {"u8", Type::u8},     {"u16", Type::u16},
               {"u32", Type::u32},   {"u64", Type::u64},   {"fp16", Type::fp16}, {"bf16", Type::bf16},
               {"fp32", Type::fp32}, {"f32", Type::fp32},  {"fp64", Type::fp64}};
  if (s[0] == '*') {
    out = Type::pointer;
    return true;
  }
  for (const auto &entry : names)
    if (std::strcmp(entry.name, s) == 0) {
      out = entry.type;
      return true;
    }
  return false;
}

bool store_argument(Type type, PyObject *value, bool on_device, uint64_t &slot) {
  if (type == Type::pointer) return store_pointer(value, on_device, slot);
  if (type >= Type::fp16) return store_float(type, value, slot);
  uint64_t bits = PyLong_AsUnsignedLongLongMask(value);  // wraps, and takes anything with __index__
  if (bits == UINT64_MAX && PyErr_Occurred()) return false;
  switch (type) {
    case Type::i1: slot = bits & 1; break;
    case Type::i8: slot = static_cast<uint64_t>(static_cast<int8_t>(bits)); break;
    case Type::i16: slot = static_cast<uint64_t>(static_cast<int16_t>(bits)); break;
    case Type::i32: slot = static_cast<uint64_t>(static_cast<int32_t>(bits)); break;
    case Type::u8: slot = static_cast<uint8_t>(bits); break;
    case Type::u16: slot = static_cast<uint16_t>(bits); break;
    case Type::u32: slot = static_cast<uint32_t>(bits); break;
    default: slot = bits;
  }
  return true;
}

bool init_arguments(PyObject *tensor_types, PyObject *exchange_api, uintptr_t address_of_tensor) {
  tensor_address = reinterpret_cast<void *(*)(PyObject *)>(address_of_tensor);
  if (!data_ptr_name && !(data_ptr_name = PyUnicode_InternFromString("data_ptr"))) return false;
  if (!is_cpu_name && !(is_cpu_name = PyUnicode_InternFromString("is_cpu"))) return false;
  if (!PyArg_ParseTuple(tensor_types, "O!O!", &PyType_Type, &plain_types[0], &PyType_Type, &plain_types[1])) return false;
  Py_INCREF(plain_types[0]);
  Py_INCREF(plain_types[1]);
  if (exchange_api == Py_None) return true;
  auto *api = static_cast<const DLPackExchangeAPI *>(PyCapsule_GetPointer(exchange_api, "dlpack_exchange_api"));
  if (!api) return false;
  if (api->major == 1) exchange = api;
  return true;
}

}  // namespace torchport

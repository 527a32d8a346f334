// What the inputs of a graph are, so that each call sees whether they are still the same.
#include "dlpack.h"
#include "native.h"

#include <memory>

namespace torchport {
namespace {

constexpr const char *kName = "torchport.inputs";

struct Input {
  bool constant = false, number = false;
  long long value = 0;  // of a number
  void *data = nullptr;
  int32_t device = 0;
  uint32_t dtype = 0;
  std::vector<int64_t> sizes, strides;
};
using Inputs = std::vector<Input>;

uint32_t dtype_of(const DLTensor &tensor) {
  return tensor.dtype_code | uint32_t{tensor.dtype_bits} << 8 | uint32_t{tensor.dtype_lanes} << 16;
}

// The stride of a dimension of one element means nothing.
bool same_layout(const Input &input, const DLTensor &tensor) {
  if (static_cast<size_t>(tensor.ndim) != input.sizes.size()) return false;
  for (int32_t i = 0; i < tensor.ndim; ++i)
    if (tensor.shape[i] != input.sizes[i] || (tensor.shape[i] > 1 && tensor.strides[i] != input.strides[i])) return false;
  return true;
}

bool same(const Input &input, const DLTensor &tensor) {
  if (input.constant && input.data != tensor.data) return false;
  return input.device == tensor.device_type && input.dtype == dtype_of(tensor) && same_layout(input, tensor);
}

// A size or another whole number of a graph whose sizes may change. False where `object` is none, or has no 64 bits.
bool number_of(PyObject *object, long long &value) {
  int overflow = 0;
  if (!PyLong_CheckExact(object)) return false;
  value = PyLong_AsLongLongAndOverflow(object, &overflow);
  return overflow == 0;
}

bool same(const Input &input, PyObject *object) {
  if (input.number) {
    long long value;
    return number_of(object, value) && (!input.constant || value == input.value);
  }
  DLTensor tensor;
  return describe_tensor(object, tensor) && same(input, tensor);
}

void destroy(PyObject *capsule) { delete static_cast<Inputs *>(PyCapsule_GetPointer(capsule, kName)); }

}  // namespace

PyObject *inputs_of(PyObject *, PyObject *const *args, Py_ssize_t given) {
  if (given != 2 || !PyList_Check(args[0]) || !PyList_Check(args[1])) {
    PyErr_SetString(PyExc_TypeError, "inputs_of(tensors, constants) takes two lists");
    return nullptr;
  }
  auto inputs = std::make_unique<Inputs>(PyList_GET_SIZE(args[0]));
  for (size_t i = 0; i < inputs->size(); ++i) {
    Input &input = (*inputs)[i];
    if ((input.number = number_of(PyList_GET_ITEM(args[0], i), input.value))) continue;
    DLTensor tensor;
    if (!describe_tensor(PyList_GET_ITEM(args[0], i), tensor)) {
      PyErr_Clear();
      Py_RETURN_NONE;
    }
    input.data = tensor.data;
    input.device = tensor.device_type;
    input.dtype = dtype_of(tensor);
    input.sizes.assign(tensor.shape, tensor.shape + tensor.ndim);
    input.strides.assign(tensor.strides, tensor.strides + tensor.ndim);
  }
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[1]); ++i) {
    const Py_ssize_t place = PyLong_AsSsize_t(PyList_GET_ITEM(args[1], i));
    if (place == -1 && PyErr_Occurred()) return nullptr;
    if (place < 0 || place >= PyList_GET_SIZE(args[0])) {
      PyErr_SetString(PyExc_IndexError, "a constant is none of the tensors");
      return nullptr;
    }
    (*inputs)[place].constant = true;
  }
  PyObject *capsule = PyCapsule_New(inputs.get(), kName, destroy);
  if (capsule) inputs.release();
  return capsule;
}

PyObject *inputs_changed(PyObject *, PyObject *const *args, Py_ssize_t given) {
  if (given != 2 || !PyList_Check(args[1])) {
    PyErr_SetString(PyExc_TypeError, "inputs_changed(inputs, tensors) takes a capsule and a list");
    return nullptr;
  }
  const auto *inputs = static_cast<const Inputs *>(PyCapsule_GetPointer(args[0], kName));
  if (!inputs) return nullptr;
  if (static_cast<size_t>(PyList_GET_SIZE(args[1])) != inputs->size()) {
    PyErr_SetString(PyExc_ValueError, "another number of tensors than before");
    return nullptr;
  }
  PyObject *changed = nullptr;
  for (size_t i = 0; i < inputs->size(); ++i) {
    if (same((*inputs)[i], PyList_GET_ITEM(args[1], i))) continue;
    PyErr_Clear();
    if (!changed && !(changed = PyList_New(0))) return nullptr;
    PyObject *place = PyLong_FromSize_t(i);
    const bool added = place && PyList_Append(changed, place) == 0;
    Py_XDECREF(place);
    if (!added) {
      Py_DECREF(changed);
      return nullptr;
    }
  }
  return changed ? changed : PyList_New(0);
}

}  // namespace torchport

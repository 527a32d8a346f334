// What statistics.cpp found in a tensor, as JSON, for Python.
#include <algorithm>
#include <charconv>
#include <cstdio>

#include "statistics.h"

namespace torchport {
namespace {

constexpr int kSample = 256;

void append(std::string &text, double value) {
  if (!std::isfinite(value)) {
    text += "null";
    return;
  }
  char room[40];
#if defined(__cpp_lib_to_chars)
  text.append(room, std::to_chars(room, room + sizeof room, value).ptr);
#else
  std::snprintf(room, sizeof room, "%.17g", value);
  text += room;
#endif
}

uint64_t scattered(uint64_t index) {  // splitmix64
  index += 0x9E3779B97F4A7C15u;
  index = (index ^ (index >> 30)) * 0xBF58476D1CE4E5B9u;
  index = (index ^ (index >> 27)) * 0x94D049BB133111EBu;
  return index ^ (index >> 31);
}

void append_details(std::string &text, const Walk &walk, const Details &total, const std::vector<Dimension> &logical,
                    const std::vector<size_t> &order) {
  text += ",\"exponents\":[";
  bool first = true;
  for (int bin = 0; bin < kBins; ++bin) {
    const auto negative = total.bins[static_cast<size_t>(bin)], positive = total.bins[static_cast<size_t>(kBins + bin)];
    if (!negative && !positive) continue;
    text += (first ? "[" : ",[") + std::to_string(bin + kLowest) + "," + std::to_string(negative) + "," +
            std::to_string(positive) + "]";
    first = false;
  }
  text += "],\"step\":" + std::to_string(walk.step) + ",\"top\":[";
  first = true;
  for (const Largest &one : total.largest) {
    if (one.position < 0) break;
    // A position in the order of memory is one in the order of the tensor's own dimensions.
    int64_t rest = one.position, index = 0;
    std::vector<int64_t> at(logical.size());
    for (size_t axis = order.size(); axis-- > 0; rest /= logical[order[axis]].size)
      at[order[axis]] = rest % logical[order[axis]].size;
    for (size_t axis = 0; axis < logical.size(); ++axis) index = index * logical[axis].size + at[axis];
    text += (first ? "[" : ",[") + std::to_string(index) + ",";
    append(text, one.value);
    text += "]";
    first = false;
  }
  text += "],\"sample\":\"";
  const int bytes = kBytes[static_cast<int>(walk.element)];
  std::string raw;
  for (int64_t i = 0; i < std::min<int64_t>(walk.count, kSample); ++i) {
    int64_t index = walk.count <= kSample ? i : static_cast<int64_t>(scattered(static_cast<uint64_t>(i)) %
                                                                      static_cast<uint64_t>(walk.count));
    int64_t offset = 0;
    for (size_t axis = logical.size(); axis-- > 0; index /= logical[axis].size)
      offset += index % logical[axis].size * logical[axis].stride;
    raw.append(walk.data + offset * bytes, static_cast<size_t>(bytes));
  }
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < raw.size(); i += 3) {
    const size_t left = std::min<size_t>(3, raw.size() - i);
    uint32_t word = 0;
    for (size_t j = 0; j < 3; ++j) word = word << 8 | (j < left ? static_cast<uint8_t>(raw[i + j]) : 0u);
    for (size_t j = 0; j < 4; ++j) text += j <= left ? digits[word >> (18 - 6 * j) & 63] : '=';
  }
  text += "\"";
}

bool read_dimensions(PyObject *sizes, PyObject *strides, std::vector<Dimension> &dimensions) {
  if (!PyTuple_Check(sizes) || !PyTuple_Check(strides) || PyTuple_GET_SIZE(sizes) != PyTuple_GET_SIZE(strides)) {
    PyErr_SetString(PyExc_TypeError, "summarize: sizes and strides are tuples of one length");
    return false;
  }
  for (Py_ssize_t axis = 0; axis < PyTuple_GET_SIZE(sizes); ++axis) {
    dimensions.push_back({PyLong_AsLongLong(PyTuple_GET_ITEM(sizes, axis)), PyLong_AsLongLong(PyTuple_GET_ITEM(strides, axis))});
    if (PyErr_Occurred()) return false;
    if (dimensions.back().size < 0 || dimensions.back().stride < 0) {
      PyErr_SetString(PyExc_ValueError, "summarize: sizes and strides are not negative");
      return false;
    }
  }
  return true;
}

// A tensor in the order of its memory. Returns false with a Python exception set.
bool read_walk(PyObject *element, PyObject *sizes, PyObject *strides, std::vector<Dimension> &logical,
               std::vector<size_t> &order, Walk &walk) {
  const long number = PyLong_AsLong(element);
  if ((number == -1 && PyErr_Occurred()) || !read_dimensions(sizes, strides, logical)) return false;
  if (number < 0 || number >= static_cast<long>(Element::kCount)) {
    PyErr_SetString(PyExc_ValueError, "summarize: no such element type");
    return false;
  }
  walk.element = static_cast<Element>(number);
  order.resize(logical.size());
  for (size_t axis = 0; axis < order.size(); ++axis) order[axis] = axis, walk.count *= logical[axis].size;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return logical[a].stride > logical[b].stride; });
  for (const size_t axis : order) {
    const Dimension one = logical[axis];
    if (one.size == 1) continue;
    if (!walk.merged.empty() && walk.merged.back().stride == one.size * one.stride)
      walk.merged.back() = {walk.merged.back().size * one.size, one.stride};
    else
      walk.merged.push_back(one);
  }
  if (walk.merged.empty()) walk.merged.push_back({1, 1});
  return true;
}

// Appends the summary of a tensor, and adds to `strange` what is not finite. Returns false with a Python exception set.
bool append_summary(std::string &text, const void *address, PyObject *element, PyObject *sizes, PyObject *strides,
                    bool detailed, int64_t &strange) {
  std::vector<Dimension> logical;
  std::vector<size_t> order;
  Walk walk;
  walk.data = static_cast<const char *>(address);
  walk.detailed = detailed;
  if (!read_walk(element, sizes, strides, logical, order, walk) || !look_at(walk)) return false;
  const Part total = total_of(walk);
  const int64_t odd = total.nan + total.positive + total.negative, finite = walk.count - odd;
  strange += odd;
  text += "{\"count\":" + std::to_string(walk.count) + ",\"finite\":" + std::to_string(finite);
  const std::pair<const char *, int64_t> counts[] = {{"nan", total.nan},   {"posinf", total.positive},
                                                     {"neginf", total.negative}, {"zero", total.zero},
                                                     {"denormal", total.denormal}, {"canary", total.canary}};
  for (const auto &[name, count] : counts)
    if (count || detailed) text += std::string(",\"") + name + "\":" + std::to_string(count);
  const double n = finite ? static_cast<double>(finite) : NAN;
  const std::pair<const char *, double> values[] = {
      {"min", total.least}, {"max", total.most}, {"mean", total.sum / n}, {"mean_square", total.squares / n}};
  for (const auto &[name, value] : values) {
    text += std::string(",\"") + name + "\":";
    append(text, value);
  }
  char hash[40];
  std::snprintf(hash, sizeof hash, ",\"hash\":\"%016llx\"", static_cast<unsigned long long>(total.hash));
  text += hash;
  if (detailed) append_details(text, walk, details_of(walk), logical, order);
  text += "}";
  return true;
}

}  // namespace

PyObject *summarize(PyObject *, PyObject *const *args, Py_ssize_t given) {
  if (given != 5) {
    PyErr_SetString(PyExc_TypeError, "summarize(address, element, sizes, strides, detailed)");
    return nullptr;
  }
  const void *address = PyLong_AsVoidPtr(args[0]);
  if (!address && PyErr_Occurred()) return nullptr;
  std::string text;
  int64_t strange = 0;
  if (!append_summary(text, address, args[1], args[2], args[3], PyObject_IsTrue(args[4]) == 1, strange)) return nullptr;
  return Py_BuildValue("s#L", text.data(), static_cast<Py_ssize_t>(text.size()), static_cast<long long>(strange));
}

PyObject *summarize_all(PyObject *, PyObject *const *args, Py_ssize_t given) {
  if (given != 2 || !PyList_Check(args[0]) || !PyList_Check(args[1]) || PyList_GET_SIZE(args[0]) != PyList_GET_SIZE(args[1])) {
    PyErr_SetString(PyExc_TypeError, "summarize_all(tensors, plans): two lists of one length");
    return nullptr;
  }
  std::string text = "[";
  int64_t strange = 0;
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(args[0]); ++i) {
    if (i) text += ",";
    PyObject *plan = PyList_GET_ITEM(args[1], i);
    if (plan == Py_None) {
      text += "null";
      continue;
    }
    if (!PyTuple_Check(plan) || PyTuple_GET_SIZE(plan) != 3) {
      PyErr_SetString(PyExc_TypeError, "summarize_all: a plan is element, sizes, strides");
      return nullptr;
    }
    uint64_t address = 0;
    if (!store_argument(Type::pointer, PyList_GET_ITEM(args[0], i), true, address) ||
        !append_summary(text, reinterpret_cast<const void *>(static_cast<uintptr_t>(address)), PyTuple_GET_ITEM(plan, 0),
                        PyTuple_GET_ITEM(plan, 1), PyTuple_GET_ITEM(plan, 2), false, strange))
      return nullptr;
  }
  text += "]";
  return Py_BuildValue("s#L", text.data(), static_cast<Py_ssize_t>(text.size()), static_cast<long long>(strange));
}

}  // namespace torchport

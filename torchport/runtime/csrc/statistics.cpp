// One pass over a tensor: counts, moments, hash, and for the first launch of a site a histogram, a sample, the largest.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>

#include "native.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define TORCHPORT_VECTORISED __attribute__((target_clones("avx2", "default")))
#else
#define TORCHPORT_VECTORISED
#endif

namespace torchport {
namespace {

// Elements of one part, which one thread looks at: the same for every number of threads, and so are the sums.
constexpr int64_t kPart = 1 << 16;
constexpr int kBlock = 1024, kLanes = 16, kSample = 256, kTop = 8, kBins = 64, kLowest = -40;
constexpr double kNanosecondsPerElement = 1.0;

enum class Element : int { f32, f64, f16, bf16, e4m3, e5m2, e4m3uz, e5m2uz, u8, i8, i16, u16, i32, u32, i64, u64, kCount };
constexpr int kBytes[] = {4, 8, 2, 2, 1, 1, 1, 1, 1, 1, 2, 2, 4, 4, 8, 8};

// The bits of a NaN that stands for memory nobody has written (torchport.numerics.summary.CANARY).
constexpr uint64_t kCanary[] = {0x7FDEADDE, 0x7FFDEADDEADDEADD, 0x7FDE, 0x7FDE};

struct Dimension {
  int64_t size, stride;  // in elements
};

struct Largest {
  double value = 0;
  int64_t position = -1;
};

struct Part {
  int64_t nan = 0, positive = 0, negative = 0, zero = 0, denormal = 0, canary = 0;
  double sum = 0, squares = 0, least = INFINITY, most = -INFINITY;
  uint64_t hash = 0;
};

struct Details {
  std::array<int64_t, 2 * kBins> bins{};  // negative values, then positive ones
  std::array<Largest, kTop> largest{};    // of falling magnitude
};

// A tensor in the order of its memory: dimensions of falling stride, neighbours that are contiguous merged.
struct Walk {
  const char *data;
  Element element;
  std::vector<Dimension> merged;
  int64_t count;
  int64_t step;  // of the histogram's sample, 0 for none
  std::vector<Part> parts;
  std::vector<Details> details;  // of each part, where they are wanted
};

// ---- one block of at most kBlock values ----

TORCHPORT_VECTORISED void count32(const float *values, int n, uint32_t least_normal, int32_t *counts) {
  const auto *bits = reinterpret_cast<const uint32_t *>(values);
  int32_t nan = 0, infinite = 0, negative = 0, zero = 0, denormal = 0;
  for (int i = 0; i < n; ++i) {
    const uint32_t magnitude = bits[i] & 0x7FFFFFFFu;
    nan += static_cast<int32_t>(magnitude) > 0x7F800000;
    infinite += magnitude == 0x7F800000u;
    negative += bits[i] == 0xFF800000u;
    zero += magnitude == 0;
    denormal += static_cast<int32_t>(magnitude) < static_cast<int32_t>(least_normal);
  }
  counts[0] = nan, counts[1] = infinite - negative, counts[2] = negative, counts[3] = zero, counts[4] = denormal - zero;
}

TORCHPORT_VECTORISED void count64(const double *values, int n, int32_t *counts) {
  const auto *bits = reinterpret_cast<const uint64_t *>(values);
  int64_t nan = 0, infinite = 0, negative = 0, zero = 0, denormal = 0;
  constexpr uint64_t kInfinite = 0x7FF0000000000000u, kLeastNormal = 0x0010000000000000u;
  for (int i = 0; i < n; ++i) {
    const uint64_t magnitude = bits[i] & 0x7FFFFFFFFFFFFFFFu;
    nan += static_cast<int64_t>(magnitude) > static_cast<int64_t>(kInfinite);
    infinite += magnitude == kInfinite;
    negative += bits[i] == (kInfinite | 0x8000000000000000u);
    zero += magnitude == 0;
    denormal += static_cast<int64_t>(magnitude) < static_cast<int64_t>(kLeastNormal);
  }
  counts[0] = static_cast<int32_t>(nan), counts[1] = static_cast<int32_t>(infinite - negative);
  counts[2] = static_cast<int32_t>(negative), counts[3] = static_cast<int32_t>(zero);
  counts[4] = static_cast<int32_t>(denormal - zero);
}

// Sums, least and greatest in kLanes lanes; all values are finite. `n` is a multiple of kLanes.
template <typename F>
inline __attribute__((always_inline)) void moments(const F *values, int n, double *sums, double *all_squares,
                                                   F *leasts, F *mosts) {
  double sum[kLanes], squares[kLanes];  // of their own, so that they stay in registers
  F least[kLanes], most[kLanes];
  std::copy(sums, sums + kLanes, sum), std::copy(all_squares, all_squares + kLanes, squares);
  std::copy(leasts, leasts + kLanes, least), std::copy(mosts, mosts + kLanes, most);
  for (int i = 0; i < n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) {
      const F value = values[i + lane];
      const double wide = value;
      sum[lane] += wide;
      squares[lane] += wide * wide;
      least[lane] = value < least[lane] ? value : least[lane];
      most[lane] = value > most[lane] ? value : most[lane];
    }
  std::copy(sum, sum + kLanes, sums), std::copy(squares, squares + kLanes, all_squares);
  std::copy(least, least + kLanes, leasts), std::copy(most, most + kLanes, mosts);
}

TORCHPORT_VECTORISED void moments32(const float *v, int n, double *sum, double *squares, float *least, float *most) {
  moments(v, n, sum, squares, least, most);
}

TORCHPORT_VECTORISED void moments64(const double *v, int n, double *sum, double *squares, double *least, double *most) {
  moments(v, n, sum, squares, least, most);
}

// Halves as floats, exactly: exponents are moved by a product with a power of two, which makes denormals normal.
TORCHPORT_VECTORISED void widen_half(const uint16_t *from, float *to, int n) {
  constexpr float kScale = 0x1p112f;
  for (int i = 0; i < n; ++i) {
    const uint32_t magnitude = static_cast<uint32_t>(from[i] & 0x7FFF) << 13;
    const uint32_t sign = static_cast<uint32_t>(from[i] & 0x8000) << 16;
    float value;
    std::memcpy(&value, &magnitude, 4);
    value *= kScale;
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits = (magnitude >= 0x0F800000u ? (magnitude | 0x7F800000u) : bits) | sign;
    std::memcpy(to + i, &bits, 4);
  }
}

TORCHPORT_VECTORISED void widen_bfloat(const uint16_t *from, float *to, int n) {
  auto *bits = reinterpret_cast<uint32_t *>(to);
  for (int i = 0; i < n; ++i) bits[i] = static_cast<uint32_t>(from[i]) << 16;
}

struct Table {
  float values[256];
  Table(int exponent_bits, int bias, bool unsigned_zero, bool infinities) {
    const int fraction_bits = 7 - exponent_bits, top = (1 << exponent_bits) - 1;
    for (int code = 0; code < 256; ++code) {
      const int exponent = (code >> fraction_bits) & top, fraction = code & ((1 << fraction_bits) - 1);
      const double scale = 1.0 / (1 << fraction_bits);
      double value = exponent ? std::ldexp(1 + fraction * scale, exponent - bias) : std::ldexp(fraction * scale, 1 - bias);
      if (unsigned_zero ? code == 0x80 : infinities ? exponent == top && fraction : (code & 0x7F) == 0x7F)
        value = NAN;
      else if (infinities && exponent == top)
        value = INFINITY;
      values[code] = static_cast<float>(code & 0x80 ? -value : value);
    }
  }
};

const float *table_of(Element element) {
  static const Table e4m3(4, 7, false, false), e5m2(5, 15, false, true), e4m3uz(4, 8, true, false),
      e5m2uz(5, 16, true, false);
  return element == Element::e4m3 ? e4m3.values : element == Element::e5m2 ? e5m2.values
         : element == Element::e4m3uz ? e4m3uz.values : e5m2uz.values;
}

uint32_t least_normal(Element element) {
  switch (element) {
    case Element::f32: case Element::bf16: return 0x00800000;  // 2^-126
    case Element::f16: case Element::e5m2: return 0x38800000;  // 2^-14
    case Element::e4m3: return 0x3C800000;                      // 2^-6
    case Element::e4m3uz: return 0x3C000000;                    // 2^-7
    case Element::e5m2uz: return 0x38000000;                    // 2^-15
    default: return 1;                                          // integers have none
  }
}

template <typename From, typename To>
void convert(const char *from, To *to, int n) {
  const auto *values = reinterpret_cast<const From *>(from);
  for (int i = 0; i < n; ++i) to[i] = static_cast<To>(values[i]);
}

// True where the element's values are looked at as doubles, else as floats: either is exact but for 64-bit integers.
bool is_wide(Element element) { return element == Element::f64 || element >= Element::i32; }

const float *as_floats(Element element, const char *from, float *room, int n) {
  switch (element) {
    case Element::f32: return reinterpret_cast<const float *>(from);
    case Element::f16: widen_half(reinterpret_cast<const uint16_t *>(from), room, n); break;
    case Element::bf16: widen_bfloat(reinterpret_cast<const uint16_t *>(from), room, n); break;
    case Element::u8: convert<uint8_t>(from, room, n); break;
    case Element::i8: convert<int8_t>(from, room, n); break;
    case Element::i16: convert<int16_t>(from, room, n); break;
    case Element::u16: convert<uint16_t>(from, room, n); break;
    default: {
      const float *table = table_of(element);
      for (int i = 0; i < n; ++i) room[i] = table[static_cast<uint8_t>(from[i])];
    }
  }
  return room;
}

const double *as_doubles(Element element, const char *from, double *room, int n) {
  switch (element) {
    case Element::i32: convert<int32_t>(from, room, n); break;
    case Element::u32: convert<uint32_t>(from, room, n); break;
    case Element::i64: convert<int64_t>(from, room, n); break;
    case Element::u64: convert<uint64_t>(from, room, n); break;
    default: return reinterpret_cast<const double *>(from);
  }
  return room;
}

// Four chains of multiplications; the order of the bytes matters.
void hash_bytes(const char *data, int64_t bytes, uint64_t *lanes) {
  constexpr uint64_t kPrime = 0x9E3779B185EBCA87u;  // of xxHash64
  const auto mix = [](uint64_t lane, uint64_t word) {
    lane = (lane ^ word) * kPrime;
    return lane ^ (lane >> 29);
  };
  int64_t at = 0;
  for (; at + 32 <= bytes; at += 32) {
    uint64_t words[4];
    std::memcpy(words, data + at, 32);
    for (int i = 0; i < 4; ++i) lanes[i] = mix(lanes[i], words[i]);
  }
  for (int lane = 0; at < bytes; at += 8, ++lane) {
    uint64_t word = 0;
    std::memcpy(&word, data + at, static_cast<size_t>(std::min<int64_t>(8, bytes - at)));
    lanes[lane] = mix(lanes[lane], word);
  }
}

uint64_t combine(uint64_t seed, uint64_t value) {
  seed ^= value + 0x9E3779B97F4A7C15u + (seed << 6) + (seed >> 2);
  seed *= 0xFF51AFD7ED558CCDu;  // of MurmurHash3's finalizer
  return seed ^ (seed >> 33);
}

template <typename F>
void add_details(const F *values, int n, int64_t position, int64_t step, Details &part) {
  for (int i = static_cast<int>((step - position % step) % step); i < n; i += static_cast<int>(step)) {
    const F value = values[i];
    if (!std::isfinite(value) || value == 0) continue;
    int exponent;
    std::frexp(value, &exponent);
    const int bin = std::clamp(exponent - 1 - kLowest, 0, kBins - 1);
    ++part.bins[static_cast<size_t>((value > 0 ? kBins : 0) + bin)];
  }
  for (int i = 0; i < n; ++i) {
    const double magnitude = std::fabs(static_cast<double>(values[i]));
    const Largest &last = part.largest.back();
    if (!(last.position < 0 || magnitude > std::fabs(last.value)) || !std::isfinite(magnitude)) continue;
    size_t place = kTop - 1;
    for (; place > 0 && (part.largest[place - 1].position < 0 || std::fabs(part.largest[place - 1].value) < magnitude);
         --place)
      part.largest[place] = part.largest[place - 1];
    part.largest[place] = {static_cast<double>(values[i]), position + i};
  }
}

template <typename F>
struct Sums {
  double sum[kLanes] = {}, squares[kLanes] = {};
  F least[kLanes], most[kLanes];
  Sums() {
    std::fill(least, least + kLanes, std::numeric_limits<F>::infinity());
    std::fill(most, most + kLanes, -std::numeric_limits<F>::infinity());
  }
  void add(const F *values, int n) {
    if constexpr (sizeof(F) == 4)
      moments32(values, n, sum, squares, least, most);
    else
      moments64(values, n, sum, squares, least, most);
  }
  void add_one(F value) {
    sum[0] += value;
    squares[0] += static_cast<double>(value) * static_cast<double>(value);
    least[0] = std::min(least[0], value);
    most[0] = std::max(most[0], value);
  }
};

int64_t canaries(Element element, const char *data, int n) {
  const auto bytes = static_cast<size_t>(kBytes[static_cast<int>(element)]);
  int64_t found = 0;
  if (element > Element::bf16) return 0;
  for (int i = 0; i < n; ++i) {
    uint64_t bits = 0;
    std::memcpy(&bits, data + static_cast<size_t>(i) * bytes, bytes);
    found += bits == kCanary[static_cast<int>(element)];
  }
  return found;
}

template <typename F>
void look(const Walk &walk, const char *raw, const F *values, int n, int64_t position, Sums<F> &sums, Part &part,
          Details *details) {
  int32_t counts[5];
  if constexpr (sizeof(F) == 4)
    count32(values, n, least_normal(walk.element), counts);
  else
    count64(values, n, counts);
  part.nan += counts[0], part.positive += counts[1], part.negative += counts[2], part.zero += counts[3];
  if (walk.element <= Element::e5m2uz) part.denormal += counts[4];
  if (counts[0]) part.canary += canaries(walk.element, raw, n);
  if (counts[0] || counts[1] || counts[2]) {
    for (int i = 0; i < n; ++i)
      if (std::isfinite(values[i])) sums.add_one(values[i]);
  } else {
    const int even = n / kLanes * kLanes;
    sums.add(values, even);
    for (int i = even; i < n; ++i) sums.add_one(values[i]);
  }
  if (walk.step) add_details(values, n, position, walk.step, *details);
}

// Copies elements [position, position + n) of the walk's order to `to`.
void gather(const Walk &walk, int64_t position, int n, char *to) {
  const int bytes = kBytes[static_cast<int>(walk.element)];
  const Dimension inner = walk.merged.back();
  while (n > 0) {
    int64_t rest = position / inner.size, offset = position % inner.size * inner.stride;
    for (size_t axis = walk.merged.size() - 1; axis-- > 0;) {
      offset += rest % walk.merged[axis].size * walk.merged[axis].stride;
      rest /= walk.merged[axis].size;
    }
    const int run = static_cast<int>(std::min<int64_t>(n, inner.size - position % inner.size));
    const char *from = walk.data + offset * bytes;
    if (inner.stride == 1) {
      std::memcpy(to, from, static_cast<size_t>(run) * static_cast<size_t>(bytes));
    } else {
      for (int i = 0; i < run; ++i)
        std::memcpy(to + i * bytes, from + i * inner.stride * bytes, static_cast<size_t>(bytes));
    }
    to += run * bytes, position += run, n -= run;
  }
}

template <typename F>
void look_at_part(Walk &walk, int64_t index) {
  Part &part = walk.parts[static_cast<size_t>(index)];
  Details *const details = walk.step ? &walk.details[static_cast<size_t>(index)] : nullptr;
  Sums<F> sums;
  uint64_t lanes[4] = {1, 2, 3, 4};
  const int64_t end = std::min(walk.count, (index + 1) * kPart);
  const int bytes = kBytes[static_cast<int>(walk.element)];
  const bool dense = walk.merged.size() == 1 && walk.merged[0].stride == 1;
  alignas(64) char gathered[kBlock * 8];
  alignas(64) F room[kBlock];
  for (int64_t position = index * kPart; position < end; position += kBlock) {
    const int n = static_cast<int>(std::min<int64_t>(kBlock, end - position));
    const char *raw = walk.data + position * bytes;
    if (!dense) {
      gather(walk, position, n, gathered);
      raw = gathered;
    }
    hash_bytes(raw, int64_t{n} * bytes, lanes);
    if constexpr (sizeof(F) == 4)
      look(walk, raw, as_floats(walk.element, raw, room, n), n, position, sums, part, details);
    else
      look(walk, raw, as_doubles(walk.element, raw, room, n), n, position, sums, part, details);
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    part.sum += sums.sum[lane];
    part.squares += sums.squares[lane];
    part.least = std::min(part.least, static_cast<double>(sums.least[lane]));
    part.most = std::max(part.most, static_cast<double>(sums.most[lane]));
  }
  for (const uint64_t lane : lanes) part.hash = combine(part.hash, lane);
}

void look_at_parts(const uint64_t *args, const int32_t *, int64_t begin, int64_t end) {
  auto &walk = *reinterpret_cast<Walk *>(args[0]);
  for (int64_t index = begin; index < end; ++index)
    is_wide(walk.element) ? look_at_part<double>(walk, index) : look_at_part<float>(walk, index);
}

// ---- what is handed to Python ----

void add_part(Part &total, const Part &part) {
  total.nan += part.nan, total.positive += part.positive, total.negative += part.negative, total.zero += part.zero;
  total.denormal += part.denormal, total.canary += part.canary;
  total.sum += part.sum, total.squares += part.squares;
  total.least = std::min(total.least, part.least), total.most = std::max(total.most, part.most);
  total.hash = combine(total.hash, part.hash);
}

void merge_details(Details &total, const Details &part) {
  for (size_t bin = 0; bin < total.bins.size(); ++bin) total.bins[bin] += part.bins[bin];
  std::array<Largest, 2 * kTop> both;
  std::copy(total.largest.begin(), total.largest.end(), both.begin());
  std::copy(part.largest.begin(), part.largest.end(), both.begin() + kTop);
  std::stable_sort(both.begin(), both.end(), [](const Largest &a, const Largest &b) {
    if ((a.position < 0) != (b.position < 0)) return b.position < 0;
    return std::fabs(a.value) > std::fabs(b.value);
  });
  std::copy(both.begin(), both.begin() + kTop, total.largest.begin());
}

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

}  // namespace

PyObject *summarize(PyObject *, PyObject *const *args, Py_ssize_t given) {
  if (given != 5) {
    PyErr_SetString(PyExc_TypeError, "summarize(address, element, sizes, strides, detailed)");
    return nullptr;
  }
  const void *address = PyLong_AsVoidPtr(args[0]);
  const long element = PyLong_AsLong(args[1]);
  std::vector<Dimension> logical;
  if (PyErr_Occurred() || !read_dimensions(args[2], args[3], logical)) return nullptr;
  if (element < 0 || element >= static_cast<long>(Element::kCount)) {
    PyErr_SetString(PyExc_ValueError, "summarize: no such element type");
    return nullptr;
  }
  Walk walk = {static_cast<const char *>(address), static_cast<Element>(element), {}, 1, 0, {}, {}};
  std::vector<size_t> order(logical.size());
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
  const bool detailed = PyObject_IsTrue(args[4]) == 1;
  if (detailed) walk.step = std::max<int64_t>(1, walk.count / kPart);
  walk.parts.resize(static_cast<size_t>((walk.count + kPart - 1) / kPart));
  if (detailed) walk.details.resize(walk.parts.size());
  Part total;
  {
    const auto parts = static_cast<int64_t>(walk.parts.size());
    const int threads = threads_for(kNanosecondsPerElement * static_cast<double>(walk.count), parts);
    if (threads < 0) return nullptr;
    const uint64_t slot = reinterpret_cast<uintptr_t>(&walk);
    const int32_t grid[3] = {1, 1, 1};
    std::string failure;
    if (threads == 1) {
      look_at_parts(&slot, grid, 0, parts);
    } else {
      Py_BEGIN_ALLOW_THREADS
      run_launch({look_at_parts, &slot, grid, parts}, threads, failure);
      Py_END_ALLOW_THREADS
    }
    for (const Part &part : walk.parts) add_part(total, part);
  }
  const int64_t strange = total.nan + total.positive + total.negative, finite = walk.count - strange;
  std::string text;
  text.reserve(detailed ? 4096 : 512);
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
  if (detailed) {
    Details details;
    for (const Details &one : walk.details) merge_details(details, one);
    append_details(text, walk, details, logical, order);
  }
  text += "}";
  return Py_BuildValue("s#L", text.data(), static_cast<Py_ssize_t>(text.size()), static_cast<long long>(strange));
}

}  // namespace torchport

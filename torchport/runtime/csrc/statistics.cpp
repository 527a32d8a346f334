// One pass over a tensor: counts, moments, hash, and where they are wanted a histogram and the largest elements.
#include "statistics.h"

#include <algorithm>
#include <cstring>
#include <limits>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define TORCHPORT_VECTORISED __attribute__((target_clones("avx2", "default")))
#else
#define TORCHPORT_VECTORISED
#endif

namespace torchport {
namespace {

// Elements of one part, which one thread looks at: the same for every number of threads, and so are the sums.
constexpr int64_t kPart = 1 << 16;
constexpr int kBlock = 1024, kLanes = 16;
constexpr double kNanosecondsPerElement = 1.0;

// The bits of a NaN that stands for memory nobody has written (torchport.numerics.runs.summary.CANARY).
constexpr uint64_t kCanary[] = {0x7FDEADDE, 0x7FFDEADDEADDEADD, 0x7FDE, 0x7FDE};

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

}  // namespace

bool look_at(Walk &walk) {
  walk.parts.resize(static_cast<size_t>((walk.count + kPart - 1) / kPart));
  if (walk.detailed) {
    walk.step = std::max<int64_t>(1, walk.count / kPart);
    walk.details.resize(walk.parts.size());
  }
  const auto parts = static_cast<int64_t>(walk.parts.size());
  const int threads = threads_for(kNanosecondsPerElement * static_cast<double>(walk.count), parts);
  if (threads < 0) return false;
  const uint64_t slot = reinterpret_cast<uintptr_t>(&walk);
  const int32_t grid[3] = {1, 1, 1};
  std::string failure;
  if (threads == 1) {
    look_at_parts(&slot, grid, 0, parts);
  } else {
    Py_BEGIN_ALLOW_THREADS
    run_launch({look_at_parts, &slot, grid, parts}, threads, {}, failure);
    Py_END_ALLOW_THREADS
  }
  return true;
}

Part total_of(const Walk &walk) {
  Part total;
  for (const Part &part : walk.parts) add_part(total, part);
  return total;
}

Details details_of(const Walk &walk) {
  Details total;
  for (const Details &one : walk.details) merge_details(total, one);
  return total;
}

}  // namespace torchport

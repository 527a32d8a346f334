// What statistics.cpp counts and statistics_module.cpp writes down.
#pragma once

#include <array>
#include <cmath>

#include "native.h"

namespace torchport {

constexpr int kTop = 8, kBins = 64, kLowest = -40;

enum class Element : int { f32, f64, f16, bf16, e4m3, e5m2, e4m3uz, e5m2uz, u8, i8, i16, u16, i32, u32, i64, u64, kCount };
constexpr int kBytes[] = {4, 8, 2, 2, 1, 1, 1, 1, 1, 1, 2, 2, 4, 4, 8, 8};

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
  const char *data = nullptr;
  Element element = Element::f32;
  std::vector<Dimension> merged;
  int64_t count = 1;
  bool detailed = false;
  int64_t step = 0;  // of the histogram's sample, 0 for none
  std::vector<Part> parts;
  std::vector<Details> details;  // of each part, where they are wanted
};

// Looks at all parts of a tensor, on torch's threads where that is worth it. Needs the GIL. Returns false with a Python
// exception set.
bool look_at(Walk &walk);

// The sums of all parts.
Part total_of(const Walk &walk);
Details details_of(const Walk &walk);

}  // namespace torchport

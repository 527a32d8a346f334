// What tl.device_print writes: one line for each element, in the format of Triton's GPU targets.
#include "native.h"

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>

namespace torchport {
namespace {

uint64_t read_bits(const char *at, int64_t bytes) {
  uint64_t bits = 0;
  std::memcpy(&bits, at, static_cast<size_t>(bytes));  // little-endian, as the slots of the ABI
  return bits;
}

int64_t sign_extended(uint64_t bits, int64_t bytes) {
  const int shift = static_cast<int>(64 - 8 * bytes);
  return static_cast<int64_t>(bits << shift) >> shift;
}

void append_value(std::string &out, const Printed &what, const char *at) {
  char text[400];  // %f of the largest double has 309 digits before the point
  const uint64_t bits = read_bits(at, what.bytes);
  if (what.hex) {
    std::snprintf(text, sizeof text, "0x%0*" PRIx64, static_cast<int>(2 * what.bytes), bits);
  } else if (what.kind == 'f') {
    double number;
    float single;
    if (what.bytes == 8) {
      std::memcpy(&number, &bits, 8);
    } else {
      std::memcpy(&single, &bits, 4);
      number = single;
    }
    std::snprintf(text, sizeof text, "%f", number);
  } else if (what.kind == 'p') {
    std::snprintf(text, sizeof text, "0x%" PRIx64, bits);
  } else if (what.kind == 'i') {
    std::snprintf(text, sizeof text, "%" PRId64, sign_extended(bits, what.bytes));
  } else {
    std::snprintf(text, sizeof text, "%" PRIu64, bits);
  }
  out += text;
}

// Digits of the largest index of a dimension: indices of one tensor stand below each other.
int index_width(int64_t size) { return static_cast<int>(std::ceil(std::log10(static_cast<double>(size)))); }

void append_index(std::string &out, const Printed &what, int64_t linear) {
  int64_t below = 1;
  for (int64_t axis = 0; axis < what.rank; ++axis) below *= what.shape[axis];
  for (int64_t axis = 0; axis < what.rank; ++axis) {
    below /= what.shape[axis];
    char text[32];
    std::snprintf(text, sizeof text, "%s%*" PRId64, axis ? ", " : "", index_width(what.shape[axis]), linear / below);
    linear %= below;
    out += text;
  }
}

}  // namespace

extern "C" void torchport_print(const char *prefix, const Printed *what, const void *values, int32_t x, int32_t y,
                                int32_t z) {
  char program[64];
  std::snprintf(program, sizeof program, "pid (%d, %d, %d)", x, y, z);
  std::string out;
  int64_t count = 1;
  for (int64_t axis = 0; axis < what->rank; ++axis) count *= what->shape[axis];
  if (what->kind == 0) {
    out = std::string(program) + prefix + "\n";
    count = 0;
  }
  for (int64_t i = 0; i < count; ++i) {
    out += program;
    out += " idx (";
    append_index(out, *what, i);
    out += ")";
    out += prefix;
    if (what->operand >= 0) out += "(operand " + std::to_string(what->operand) + ") ";
    append_value(out, *what, static_cast<const char *>(values) + i * what->bytes);
    out += "\n";
  }
  std::fwrite(out.data(), 1, out.size(), stdout);  // one call: threads do not cut each other's lines
  std::fflush(stdout);
}

}  // namespace torchport

// What the parts of the sanitizer share: sanitizer.cpp checks accesses, sanitizer_module.cpp talks to Python.
//
// A sanitized launch runs its program instances in order on one thread (the Python launcher asks for it), so nothing
// here is locked, and two runs of the same launch find the same things.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace torchport::sanitizer {

enum Check : unsigned { kAddress = 1, kUninitialized = 2, kRace = 4 };
enum Effect : unsigned { kReads = 1, kWrites = 2, kAtomic = 4, kSynchronizes = 8, kVolatile = 16 };

// One memory operation of the kernel. `number`: what it is reported as, one for all copies of a line of the source.
// `arguments`: the kernel arguments its addresses come from; empty: not known.
struct Site {
  int number;
  unsigned effects;
  uint32_t bytes;
  std::vector<int> arguments;
};

// One storage. `written`: a byte for each of its bytes, 0 where nothing has been written; null: all of it counts as
// written. `writes` and `reads`: the last access to each granule of 2**shift bytes; null: not watched for races.
struct Memory {
  uint64_t begin, end;
  uint8_t *written;
  unsigned shift;
  uint64_t *writes, *reads;
};

// A pointer argument: its storage (an index, or -1 where that is not known) and the addresses it may be used for.
struct Argument {
  int memory;
  uint64_t low, high;
};

// One kind of finding: its first occurrence, and how many elements and program instances have it.
struct Finding {
  uint64_t address;
  int32_t program[3];
  int64_t other_program;  // linear index, -1 where it is not known or there is none
  uint64_t last_program;
  int64_t programs;
  std::unordered_set<uint64_t> elements;
};
using Key = std::tuple<unsigned, int, int, int>;  // check, site, argument, the other site (-1: none)

constexpr size_t kMostElements = size_t{1} << 20;  // where counting stops

// The bookkeeping of one launch. What is public is filled in before it.
class Sanitizer {
 public:
  std::vector<Site> sites;
  std::vector<Memory> memory;
  std::vector<Argument> arguments;
  unsigned checks = 0;
  int64_t width = 1, height = 1;  // of the grid
  std::map<Key, Finding> findings;

  Sanitizer() = default;
  Sanitizer(const Sanitizer &) = delete;
  Sanitizer &operator=(const Sanitizer &) = delete;
  ~Sanitizer();

  // Watches a storage for races: `granule`, a power of two, is the smallest access. False where memory is short.
  bool watch_races(Memory &storage, unsigned granule);

  // A program instance starts.
  void enter(int32_t x, int32_t y, int32_t z);

  // Clears the bytes of `mask` whose access may not happen.
  void check(int site, int64_t lanes, const uint64_t *addresses, uint8_t *mask);

 private:
  bool access(const Site &site, uint64_t address);
  void watch(const Site &site, int argument, Memory &storage, uint64_t address);
  bool foreign(uint64_t access) const;
  bool ordered(uint64_t access) const;
  void record(unsigned check, int site, int argument, int other_site, uint64_t address, int64_t other_program);

  int32_t program_[3] = {};
  uint64_t linear_ = 0, clock_ = 0, acquired_ = 0;
  std::vector<uint64_t> *released_ = nullptr;                      // this program's, once it has released
  std::unordered_map<uint64_t, std::vector<uint64_t>> releases_;  // when each program released
};

// What kernels call.
extern "C" void torchport_sanitizer_enter(uint64_t launch, int32_t x, int32_t y, int32_t z);
extern "C" void torchport_sanitizer_check(int32_t site, int64_t lanes, const uint64_t *addresses, uint8_t *mask);

}  // namespace torchport::sanitizer

// The kernel sanitizer at run time: what instrumented kernels call before each access.
#include "sanitizer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

namespace torchport::sanitizer {
namespace {

// The last access to a granule: bits 0-31 the program's linear index + 1, 32-46 how often it had released, 47-62 the
// site, 63 a flag: the access was an atomic write. Of the reads since the last write the first is kept: programs run one
// after the other, so a program that writes is the first reader only if no other has read.
constexpr uint64_t kFlag = uint64_t{1} << 63;
constexpr uint32_t kMostReleases = (1u << 15) - 1, kMostSites = (1u << 16) - 1;
uint64_t program_of(uint64_t access) { return (access & 0xffffffff) - 1; }
uint32_t releases_of(uint64_t access) { return static_cast<uint32_t>(access >> 32) & kMostReleases; }
int site_of(uint64_t access) { return static_cast<int>(access >> 47 & kMostSites); }

// Zeroed memory whose pages are not there until they are touched; std::free frees it.
void *untouched_zeros(size_t bytes) {
  void *const memory = std::calloc(bytes, 1);
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kPage = uintptr_t{1} << 21;
  const uintptr_t from = (reinterpret_cast<uintptr_t>(memory) + kPage - 1) & ~(kPage - 1);
  const uintptr_t to = (reinterpret_cast<uintptr_t>(memory) + bytes) & ~(kPage - 1);
  if (memory && from < to) madvise(reinterpret_cast<void *>(from), to - from, MADV_HUGEPAGE);  // a third of the time
#endif
  return memory;
}

bool fits(const Argument &argument, const Site &site, uint64_t address, size_t index, int &found) {
  if (argument.memory < 0 || address < argument.low || address > argument.high ||
      argument.high - address < site.bytes)
    return false;
  found = static_cast<int>(index);
  return true;
}

}  // namespace

Sanitizer::~Sanitizer() {
  for (const Memory &one : memory) std::free(one.writes);
}

bool Sanitizer::watch_races(Memory &storage, unsigned granule) {
  while (granule >> (storage.shift + 1)) ++storage.shift;
  const size_t granules = ((storage.end - storage.begin) >> storage.shift) + 1;
  storage.writes = static_cast<uint64_t *>(untouched_zeros(2 * granules * sizeof(uint64_t)));
  storage.reads = storage.writes + granules;
  return storage.writes != nullptr;
}

void Sanitizer::enter(int32_t x, int32_t y, int32_t z) {
  program_[0] = x;
  program_[1] = y;
  program_[2] = z;
  linear_ = static_cast<uint64_t>(x + width * (y + height * z)) & 0x7fffffff;
  acquired_ = 0;
  released_ = nullptr;
}

void Sanitizer::check(int site_index, int64_t lanes, const uint64_t *addresses, uint8_t *mask) {
  const Site &site = sites[static_cast<size_t>(site_index)];
  const bool synchronizes = site.effects & kSynchronizes && std::any_of(mask, mask + lanes, [](uint8_t m) { return m; });
  if (synchronizes) acquired_ = ++clock_;
  for (int64_t lane = 0; lane < lanes; ++lane)
    if (mask[lane]) mask[lane] = access(site, addresses[lane]);
  if (synchronizes) {
    if (!released_) released_ = &releases_[linear_];
    released_->push_back(++clock_);
  }
}

// Whether the access may happen.
bool Sanitizer::access(const Site &site, uint64_t address) {
  int argument = -1;
  bool inside = false;
  if (site.arguments.empty()) {
    for (size_t i = 0; i < arguments.size() && !inside; ++i) inside = fits(arguments[i], site, address, i, argument);
    if (!inside) return true;  // memory that is no argument's: nothing is known of it
  } else {
    for (int i : site.arguments) {
      if (arguments[i].memory < 0) return true;
      inside = inside || fits(arguments[i], site, address, i, argument);
    }
  }
  if (!inside) {
    if (!(checks & kAddress)) return true;
    record(kAddress, site.number, site.arguments[0], -1, address, -1);
    return false;
  }
  Memory &storage = memory[arguments[argument].memory];
  if (checks & kUninitialized && storage.written) {
    uint8_t *const bytes = storage.written + (address - storage.begin);
    if (site.effects & kReads && std::any_of(bytes, bytes + site.bytes, [](uint8_t b) { return !b; }))
      record(kUninitialized, site.number, argument, -1, address, -1);
    if (site.effects & kWrites) std::fill(bytes, bytes + site.bytes, uint8_t{1});
  }
  if (checks & kRace && storage.writes) watch(site, argument, storage, address);
  return true;
}

// FastTrack (Flanagan and Freund, PLDI 2009) with one clock for all programs in place of vector clocks: any two
// atomics that are not relaxed order what is before the first and after the second, whatever they access.
void Sanitizer::watch(const Site &site, int argument, Memory &storage, uint64_t address) {
  const uint64_t first = (address - storage.begin) >> storage.shift;
  const uint64_t last = (address - storage.begin + site.bytes - 1) >> storage.shift;
  const uint64_t releases = released_ ? std::min<size_t>(released_->size(), kMostReleases) : 0;
  const uint64_t mine = (linear_ + 1) | releases << 32 | uint64_t{std::min<uint32_t>(site.number, kMostSites)} << 47;
  uint64_t other = 0;
  for (uint64_t granule = first; granule <= last; ++granule) {
    uint64_t &write = storage.writes[granule], &read = storage.reads[granule];
    const bool atomic = site.effects & kAtomic;
    if (write && foreign(write) && !(write & kFlag && (atomic || site.effects & kVolatile)) && !ordered(write))
      other = write;
    if (site.effects & kWrites) {
      if (read && foreign(read) && !ordered(read)) other = read;
      // an atomic of a program after its plain write: the write is what others can race with
      if (!(atomic && write && !(write & kFlag) && !foreign(write))) write = mine | (atomic ? kFlag : 0);
      if (read) read = 0;  // a page that nothing has read stays untouched
    } else if (!(site.effects & kVolatile)) {
      if (!read || !foreign(read) || ordered(read)) read = mine;
    }
  }
  if (other) record(kRace, site.number, argument, site_of(other), address, static_cast<int64_t>(program_of(other)));
}

bool Sanitizer::foreign(uint64_t access) const { return program_of(access) != linear_; }

// Whether an access of another program happened before this program's last acquire: released after, acquired later.
bool Sanitizer::ordered(uint64_t access) const {
  const auto found = releases_.find(program_of(access));
  if (found == releases_.end()) return false;
  const uint32_t next = releases_of(access);
  return next < found->second.size() && found->second[next] < acquired_;
}

void Sanitizer::record(unsigned check, int site, int argument, int other_site, uint64_t address, int64_t other_program) {
  const auto [at, first] = findings.try_emplace(Key{check, site, argument, other_site});
  Finding &finding = at->second;
  if (first) {
    finding.address = address;
    std::copy(program_, program_ + 3, finding.program);
    finding.other_program = other_program;
    finding.programs = 0;
  }
  if (first || finding.last_program != linear_) ++finding.programs;
  finding.last_program = linear_;
  if (finding.elements.size() < kMostElements) finding.elements.insert(address);
}

namespace {
thread_local Sanitizer *current = nullptr;
}

extern "C" void torchport_sanitizer_enter(uint64_t launch, int32_t x, int32_t y, int32_t z) {
  current = reinterpret_cast<Sanitizer *>(launch);
  current->enter(x, y, z);
}

extern "C" void torchport_sanitizer_check(int32_t site, int64_t lanes, const uint64_t *addresses, uint8_t *mask) {
  current->check(site, lanes, addresses, mask);
}

}  // namespace torchport::sanitizer

// The kernel sanitizer at run time: what instrumented kernels call before each access, and what they found.
//
// A sanitized launch runs its program instances in order on one thread (the Python launcher asks for it), so nothing
// here is locked, and two runs of the same launch find the same things.
#include "native.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace torchport {
namespace {

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

// The last access to a granule: bits 0-31 the program's linear index + 1, 32-46 how often it had released, 47-62 the
// site, 63 a flag: the access was an atomic write. Of the reads since the last write the first is kept: programs run one
// after the other, so a program that writes is the first reader only if no other has read.
constexpr uint64_t kFlag = uint64_t{1} << 63;
constexpr uint32_t kMostReleases = (1u << 15) - 1, kMostSites = (1u << 16) - 1;
uint64_t program_of(uint64_t access) { return (access & 0xffffffff) - 1; }
uint32_t releases_of(uint64_t access) { return static_cast<uint32_t>(access >> 32) & kMostReleases; }
int site_of(uint64_t access) { return static_cast<int>(access >> 47 & kMostSites); }

class Launch {
 public:
  std::vector<Site> sites;
  std::vector<Memory> memory;
  std::vector<Argument> arguments;
  unsigned checks = 0;
  int64_t width = 1, height = 1;  // of the grid
  std::map<Key, Finding> findings;

  ~Launch() {
    for (const Memory &one : memory) std::free(one.writes);
  }

  void enter(int32_t x, int32_t y, int32_t z) {
    program_[0] = x;
    program_[1] = y;
    program_[2] = z;
    linear_ = static_cast<uint64_t>(x + width * (y + height * z)) & 0x7fffffff;
    acquired_ = 0;
    released_ = nullptr;
  }

  void check(int site_index, int64_t lanes, const uint64_t *addresses, uint8_t *mask) {
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

 private:
  // Whether the access may happen.
  bool access(const Site &site, uint64_t address) {
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

  static bool fits(const Argument &argument, const Site &site, uint64_t address, size_t index, int &found) {
    if (argument.memory < 0 || address < argument.low || address > argument.high ||
        argument.high - address < site.bytes)
      return false;
    found = static_cast<int>(index);
    return true;
  }

  // FastTrack (Flanagan and Freund, PLDI 2009) with one clock for all programs in place of vector clocks: any two
  // atomics that are not relaxed order what is before the first and after the second, whatever they access.
  void watch(const Site &site, int argument, Memory &storage, uint64_t address) {
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
        if (!read || ordered(read)) read = mine;
      }
    }
    if (other) record(kRace, site.number, argument, site_of(other), address, static_cast<int64_t>(program_of(other)));
  }

  bool foreign(uint64_t access) const { return program_of(access) != linear_; }

  // Whether an access of another program happened before this program's last acquire: released after, acquired later.
  bool ordered(uint64_t access) const {
    const auto found = releases_.find(program_of(access));
    if (found == releases_.end()) return false;
    const uint32_t next = releases_of(access);
    return next < found->second.size() && found->second[next] < acquired_;
  }

  void record(unsigned check, int site, int argument, int other_site, uint64_t address, int64_t other_program) {
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

  int32_t program_[3] = {};
  uint64_t linear_ = 0, clock_ = 0, acquired_ = 0;
  std::vector<uint64_t> *released_ = nullptr;                      // this program's, once it has released
  std::unordered_map<uint64_t, std::vector<uint64_t>> releases_;  // when each program released
};

thread_local Launch *current = nullptr;

constexpr const char *kCapsule = "torchport.sanitizer";

Launch *launch_of(PyObject *capsule) { return static_cast<Launch *>(PyCapsule_GetPointer(capsule, kCapsule)); }

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

bool read_sites(PyObject *list, Launch &launch) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i) {
    Site site;
    PyObject *arguments;
    if (!PyArg_ParseTuple(PyList_GET_ITEM(list, i), "iIIO!", &site.number, &site.effects, &site.bytes,
                          &PyTuple_Type, &arguments))
      return false;
    for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(arguments); ++k) {
      const long index = PyLong_AsLong(PyTuple_GET_ITEM(arguments, k));
      if (index < 0 || static_cast<size_t>(index) >= launch.arguments.size()) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "a site names an argument that there is not");
        return false;
      }
      site.arguments.push_back(static_cast<int>(index));
    }
    launch.sites.push_back(std::move(site));
  }
  return true;
}

bool read_memory(PyObject *list, Launch &launch) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i) {
    unsigned long long begin, end, written;
    unsigned granule;
    if (!PyArg_ParseTuple(PyList_GET_ITEM(list, i), "KKKI", &begin, &end, &written, &granule)) return false;
    Memory one = {begin, end, reinterpret_cast<uint8_t *>(static_cast<uintptr_t>(written)), 0, nullptr, nullptr};
    if (granule && end > begin && launch.checks & kRace) {
      while (granule >> (one.shift + 1)) ++one.shift;
      const size_t granules = ((end - begin) >> one.shift) + 1;
      one.writes = static_cast<uint64_t *>(untouched_zeros(2 * granules * sizeof(uint64_t)));
      if (!one.writes) {
        PyErr_NoMemory();
        return false;
      }
      one.reads = one.writes + granules;
    }
    launch.memory.push_back(one);
  }
  return true;
}

bool read_arguments(PyObject *list, Launch &launch) {
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i) {
    int memory;
    unsigned long long low, high;
    if (!PyArg_ParseTuple(PyList_GET_ITEM(list, i), "iKK", &memory, &low, &high)) return false;
    launch.arguments.push_back({memory, low, high});
  }
  return true;
}

PyObject *sanitizer_begin(PyObject *, PyObject *args) {
  PyObject *sites, *memory, *arguments;
  long long width, height;
  auto launch = std::make_unique<Launch>();
  if (!PyArg_ParseTuple(args, "O!O!O!ILL", &PyList_Type, &sites, &PyList_Type, &memory, &PyList_Type, &arguments,
                        &launch->checks, &width, &height))
    return nullptr;
  launch->width = width;
  launch->height = height;
  if (!read_arguments(arguments, *launch) || !read_sites(sites, *launch) || !read_memory(memory, *launch))
    return nullptr;
  PyObject *capsule = PyCapsule_New(launch.get(), kCapsule, [](PyObject *self) { delete launch_of(self); });
  if (capsule) launch.release();
  return capsule;
}

PyObject *sanitizer_address(PyObject *, PyObject *capsule) {
  Launch *launch = launch_of(capsule);
  return launch ? PyLong_FromVoidPtr(launch) : nullptr;
}

PyObject *sanitizer_findings(PyObject *, PyObject *capsule) {
  const Launch *launch = launch_of(capsule);
  if (!launch) return nullptr;
  PyObject *list = PyList_New(0);
  for (const auto &[key, finding] : launch->findings) {
    const auto &[check, site, argument, other_site] = key;
    PyObject *item = Py_BuildValue(
        "(IiiiK(iii)LnL)", check, site, argument, other_site, static_cast<unsigned long long>(finding.address),
        finding.program[0], finding.program[1], finding.program[2], static_cast<long long>(finding.other_program),
        static_cast<Py_ssize_t>(finding.elements.size()), static_cast<long long>(finding.programs));
    if (!list || !item || PyList_Append(list, item) < 0) {
      Py_XDECREF(item);
      Py_XDECREF(list);
      return nullptr;
    }
    Py_DECREF(item);
  }
  return list;
}

PyMethodDef methods[] = {
    {"sanitizer_begin", sanitizer_begin, METH_VARARGS,
     "sanitizer_begin(sites, memory, arguments, checks, grid_x, grid_y) -> capsule\n\n"
     "What the checks of one launch need. `sites`: (number, effects, bytes, argument indices); `memory`: (begin, end,\n"
     "address of the bytes that say what is written or 0, bytes watched together for races, a power of two, or 0);\n"
     "`arguments`: (index into `memory` or -1, lowest address, end); `checks`: 1 address, 2 uninitialized, 4 race."},
    {"sanitizer_address", sanitizer_address, METH_O,
     "sanitizer_address(capsule) -> int\n\nWhat the kernel gets as its last argument."},
    {"sanitizer_findings", sanitizer_findings, METH_O,
     "sanitizer_findings(capsule) -> list\n\n"
     "(check, site, argument, other site or -1, address, (x, y, z), other program or -1, elements, programs), in a\n"
     "fixed order; elements are counted up to 2**20."},
    {nullptr, nullptr, 0, nullptr}};

extern "C" void torchport_sanitizer_enter(uint64_t launch, int32_t x, int32_t y, int32_t z) {
  current = reinterpret_cast<Launch *>(launch);
  current->enter(x, y, z);
}

extern "C" void torchport_sanitizer_check(int32_t site, int64_t lanes, const uint64_t *addresses, uint8_t *mask) {
  current->check(site, lanes, addresses, mask);
}

}  // namespace

bool add_sanitizer(PyObject *module, PyObject *functions) {
  const std::pair<const char *, void *> called[] = {
      {"torchport_sanitizer_enter", reinterpret_cast<void *>(&torchport_sanitizer_enter)},
      {"torchport_sanitizer_check", reinterpret_cast<void *>(&torchport_sanitizer_check)}};
  for (const auto &[name, function] : called) {
    PyObject *address = PyLong_FromVoidPtr(function);
    const bool added = address && PyDict_SetItemString(functions, name, address) == 0;
    Py_XDECREF(address);
    if (!added) return false;
  }
  return PyModule_AddFunctions(module, methods) == 0;
}

}  // namespace torchport

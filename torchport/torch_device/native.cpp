// What PyTorch asks of a device in C++ only: a guard that knows how many devices there are, generators, storages by
// size, memory figures. Nothing is computed here; what Python knows is asked of the module that install() is given.
//
// Compiled by `torchport device build` against the installed PyTorch (torchport/torch_device/native.py).
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/Generator.h>
#include <torch/csrc/Storage.h>
#include <torch/csrc/utils/object_ptr.h>

#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <chrono>
#include <mutex>
#include <utility>

namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::Stream;
constexpr auto kType = c10::DeviceType::PrivateUse1;

PyObject *host = nullptr;  // the Python module that answers; kept for good
DeviceIndex count = 0;
thread_local DeviceIndex current = 0;

struct Gil {
  PyGILState_STATE state = PyGILState_Ensure();
  ~Gil() { PyGILState_Release(state); }
};

// A new reference to what a function of the Python module returns; its exception goes on as C++'s. Needs the GIL.
template <typename... Arguments>
THPObjectPtr ask(const char *function, const char *format, Arguments... arguments) {
  THPObjectPtr result(PyObject_CallMethod(host, function, format, arguments...));
  if (!result) throw python_error();
  return result;
}

void check(DeviceIndex index) {
  TORCH_CHECK(0 <= index && index < count, "there is no device torchport:", static_cast<int>(index), "; there are ",
              static_cast<int>(count), ", from torchport:0");
}

void synchronize(DeviceIndex index) {
  Gil gil;
  ask("synchronize", "i", static_cast<int>(index));
}

// A place in the order of a device's work, which has one queue.
struct Event {
  DeviceIndex device;
  bool timed;
  std::chrono::steady_clock::time_point time;
};

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }
  Device exchangeDevice(Device device) const override {
    check(device.index());
    return Device(kType, std::exchange(current, device.index()));
  }
  Device getDevice() const override { return Device(kType, current); }
  void setDevice(Device device) const override { exchangeDevice(device); }
  void uncheckedSetDevice(Device device) const noexcept override { current = device.index(); }
  DeviceIndex deviceCount() const noexcept override { return count; }

  Stream getStream(Device device) const override {
    return Stream(Stream::DEFAULT, device.has_index() ? device : getDevice());
  }
  Stream getDefaultStream(Device device) const override { return getStream(device); }
  Stream getStreamFromGlobalPool(Device device, bool) const override { return getStream(device); }
  Stream getNewStream(Device device, int) const override { return getStream(device); }
  Stream exchangeStream(Stream stream) const override { return getStream(stream.device()); }
  bool queryStream(const Stream &stream) const override {
    synchronizeStream(stream);
    return true;
  }
  void synchronizeStream(const Stream &stream) const override { synchronize(stream.device_index()); }
  void synchronizeDevice(const DeviceIndex index) const override { synchronize(index); }

  // Events with a time wait when they are recorded, as drivers that only have a queue cannot tell the time later.
  void record(void **event, const Stream &stream, const DeviceIndex, const c10::EventFlag flag) const override {
    const bool timed = flag == c10::EventFlag::BACKEND_DEFAULT;
    if (timed) synchronizeStream(stream);
    destroyEvent(*event, stream.device_index());
    *event = new Event{stream.device_index(), timed, std::chrono::steady_clock::now()};
  }
  void destroyEvent(void *event, const DeviceIndex) const noexcept override { delete static_cast<Event *>(event); }
  void block(void *event, const Stream &stream) const override {
    const auto *recorded = static_cast<Event *>(event);
    if (recorded && recorded->device != stream.device_index()) synchronize(recorded->device);
  }
  bool queryEvent(void *event) const override {
    synchronizeEvent(event);
    return true;
  }
  void synchronizeEvent(void *event) const override {
    if (event) synchronize(static_cast<Event *>(event)->device);
  }
  double elapsedTime(void *event1, void *event2, const DeviceIndex) const override {
    const auto *from = static_cast<Event *>(event1), *to = static_cast<Event *>(event2);
    TORCH_CHECK(from && to && from->timed && to->timed,
                "elapsed_time needs two recorded events made with enable_timing=True");
    return std::chrono::duration<double, std::milli>(to->time - from->time).count();
  }
};

// A generator of the CPU's under a device's name: operators draw the seeds of their kernels from it, on every target the
// same.
struct Generator final : c10::GeneratorImpl {
  at::Generator cpu;

  Generator(DeviceIndex index, at::Generator cpu)
      : GeneratorImpl(Device(kType, index), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)), cpu(std::move(cpu)) {}

  template <typename F>
  auto locked(F &&function) const {
    auto *impl = cpu.unsafeGetGeneratorImpl();
    const std::lock_guard<std::mutex> hold(impl->mutex_);
    return function(*impl);
  }
  void set_current_seed(uint64_t seed) override {
    locked([&](auto &impl) { impl.set_current_seed(seed); });
  }
  uint64_t current_seed() const override {
    return locked([](auto &impl) { return impl.current_seed(); });
  }
  uint64_t seed() override {
    return locked([](auto &impl) { return impl.seed(); });
  }
  // Pickled generators have an offset beside their state, which has all of ours.
  void set_offset(uint64_t offset) override {
    TORCH_CHECK(offset == 0, "a generator of torchport has no offset: set its state");
  }
  uint64_t get_offset() const override { return 0; }
  void set_state(const c10::TensorImpl &state) override {
    locked([&](auto &impl) { impl.set_state(state); });
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    return locked([](auto &impl) { return impl.get_state(); });
  }
  GeneratorImpl *clone_impl() const override {
    return locked([&](auto &impl) { return new Generator(device_.index(), at::Generator(impl.clone())); });
  }
};

at::Generator of_cpu(PyObject *object) { return reinterpret_cast<THPGenerator *>(object)->cdata; }

struct Hooks final : at::PrivateUse1HooksInterface {
  std::vector<at::Generator> defaults;

  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return count > 0; }
  bool hasPrimaryContext(DeviceIndex index) const override { return 0 <= index && index < count; }
  DeviceIndex deviceCount() const override { return count; }
  DeviceIndex getCurrentDevice() const override { return current; }
  void setCurrentDevice(DeviceIndex index) const override { exchangeDevice(index); }
  DeviceIndex exchangeDevice(DeviceIndex index) const override { return Guard().exchangeDevice({kType, index}).index(); }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override {
    return index < 0 ? current : exchangeDevice(index);
  }

  const at::Generator &getDefaultGenerator(DeviceIndex index) const override {
    index = index < 0 ? current : index;
    check(index);
    return defaults[index];
  }
  at::Generator getNewGenerator(DeviceIndex index) const override {
    index = index < 0 ? current : index;
    check(index);
    Gil gil;
    return at::make_generator<Generator>(index, of_cpu(ask("new_generator", nullptr)));
  }

  // Memory that a device's driver pins is not known here: pinned memory is ordinary memory, and says so if asked.
  c10::Allocator *getPinnedMemoryAllocator() const override { return c10::GetCPUAllocator(); }

  void resizePrivateUse1Bytes(const c10::Storage &storage, size_t nbytes) const override {
    Gil gil;
    const THPObjectPtr old(THPStorage_Wrap(storage));
    if (!old) throw python_error();
    THPObjectPtr made = ask("resized", "On", old.get(), static_cast<Py_ssize_t>(nbytes));
    c10::Storage larger = THPStorage_Unpack(made);
    storage.unsafeGetStorageImpl()->set_data_ptr_noswap(std::move(larger.mutable_data_ptr()));
    storage.unsafeGetStorageImpl()->set_nbytes(nbytes);
  }
};

struct Allocator final : c10::DeviceAllocator {
  // The storage of a tensor of bytes that the Python module makes; the tensor's own reference goes.
  c10::DataPtr allocate(size_t nbytes) override {
    Gil gil;
    THPObjectPtr made = ask("bytes_on", "in", static_cast<int>(current), static_cast<Py_ssize_t>(nbytes));
    c10::Storage storage = THPStorage_Unpack(made);
    return std::move(storage.mutable_data_ptr());
  }
  void copy_data(void *, const void *, size_t) const override {
    TORCH_CHECK_NOT_IMPLEMENTED(false, "torchport does not clone allocations: clone a tensor");
  }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {
    Gil gil;
    ask("empty_cache", nullptr);
  }
  void recordStream(const c10::DataPtr &, Stream) override {}  // a device's work is in order
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(DeviceIndex index) override {
    Gil gil;
    THPObjectPtr figures = ask("memory_figures", "i", static_cast<int>(index));
    c10::CachingDeviceAllocator::DeviceStats stats;
    auto &used = stats.allocated_bytes[0], &held = stats.reserved_bytes[0];
    long long numbers[4];
    if (!PyArg_ParseTuple(figures, "LLLL", numbers, numbers + 1, numbers + 2, numbers + 3)) throw python_error();
    used.current = numbers[0], used.peak = numbers[1], held.current = numbers[2], held.peak = numbers[3];
    return stats;
  }
  void resetAccumulatedStats(DeviceIndex) override {}
  void resetPeakStats(DeviceIndex index) override {
    Gil gil;
    ask("reset_peak_memory_stats", "i", static_cast<int>(index));
  }
};

PyObject *install(PyObject *, PyObject *args) {
  HANDLE_TH_ERRORS
  PyObject *module, *generator;
  int devices;
  if (!PyArg_ParseTuple(args, "OiO", &module, &devices, &generator)) return nullptr;
  TORCH_CHECK(!at::isPrivateUse1HooksRegistered() && !c10::impl::hasDeviceGuardImpl(kType),
              "this process has another extension device already, and PyTorch takes one");
  host = Py_NewRef(module);
  count = static_cast<DeviceIndex>(devices);
  auto *hooks = new Hooks;
  for (DeviceIndex index = 0; index < count; ++index)
    hooks->defaults.push_back(at::make_generator<Generator>(index, of_cpu(generator)));
  at::RegisterPrivateUse1HooksInterface(hooks);
  c10::impl::registerDeviceGuard(kType, new Guard);
  c10::SetAllocator(kType, new Allocator);
  Py_RETURN_NONE;
  END_HANDLE_TH_ERRORS
}

PyObject *current_device(PyObject *, PyObject *) { return PyLong_FromLong(current); }

PyObject *exchange_device(PyObject *, PyObject *index) {
  HANDLE_TH_ERRORS
  const long number = PyLong_AsLong(index);
  if (number == -1 && PyErr_Occurred()) return nullptr;
  return PyLong_FromLong(Guard().exchangeDevice({kType, static_cast<DeviceIndex>(number)}).index());
  END_HANDLE_TH_ERRORS
}

PyObject *cpu_generator(PyObject *, PyObject *generator) {
  HANDLE_TH_ERRORS
  auto *impl = dynamic_cast<Generator *>(of_cpu(generator).unsafeGetGeneratorImpl());
  TORCH_CHECK_TYPE(impl, "the generator is not one of torchport's");
  return THPGenerator_Wrap(impl->cpu);
  END_HANDLE_TH_ERRORS
}

PyMethodDef methods[] = {
    {"install", install, METH_VARARGS, nullptr},
    {"current_device", current_device, METH_NOARGS, nullptr},
    {"exchange_device", exchange_device, METH_O, nullptr},
    {"cpu_generator", cpu_generator, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_torch_device", nullptr, -1, methods};

}  // namespace

PyMODINIT_FUNC PyInit__torch_device() { return PyModule_Create(&definition); }

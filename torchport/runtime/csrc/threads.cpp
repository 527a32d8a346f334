// One grid over torch's own threads, in parts between which a signal can end it; assertions that leave a kernel in the
// middle.
#include "native.h"

#include <setjmp.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>

namespace torchport {

OpenMP openmp = {};

namespace {

// Set while a chunk runs on this thread. Kernels have no destructors to skip, so longjmp is safe.
struct Escape {
  jmp_buf target;
  char message[1024];
};
thread_local Escape *escape = nullptr;

using Clock = std::chrono::steady_clock;

// A chunk that may be long runs in parts of 5 ms. How many program instances that are is measured, beginning with one:
// estimates are far off where a loop's length is unknown when a kernel is compiled. So only few instances that should
// take less than 20 ms are not divided. A part more costs some 50 ns.
constexpr double kLong = 20e6, kPart = 5e6, kGrowth = 256;
constexpr int64_t kFew = 16;
constexpr auto kPollEvery = std::chrono::milliseconds(50);

struct Job {
  const Launch &launch;
  const Poll &poll;
  const int chunks;
  std::string &failure;
  const bool divided;  // chunks run in parts
  std::atomic<int> running;  // chunks that have not ended
  std::atomic<bool> stopped{false};
  std::mutex mutex{};
  int failed_chunk;
  Clock::time_point polled;  // of the launching thread

  Job(const Launch &launch, const Poll &poll, int chunks, std::string &failure)
      : launch(launch), poll(poll), chunks(chunks), failure(failure), divided(is_divided(launch, poll, chunks)),
        running(chunks), failed_chunk(chunks) {
    if (divided) polled = Clock::now();
  }

  static bool is_divided(const Launch &launch, const Poll &poll, int chunks) {
    const int64_t programs = launch.programs / chunks;
    return poll.stop && (programs > kFew || launch.cost * static_cast<double>(programs) >= kLong);
  }

  void run_chunk(int chunk, bool launching) {
    const int64_t begin = launch.programs * chunk / chunks, end = launch.programs * (chunk + 1) / chunks;
    Escape here;
    Escape *const outer = escape;
    escape = &here;
    const int failed = _setjmp(here.target);  // without the signal mask, which costs a system call on some systems
    if (!failed) {
      if (divided) run_parts(begin, end, launching);
      else launch.kernel(launch.args, launch.grid, begin, end);
    }
    escape = outer;
    if (failed) {
      std::lock_guard<std::mutex> lock(mutex);
      if (chunk < failed_chunk) {
        failed_chunk = chunk;
        failure = here.message;
      }
    }
    if (divided) running.fetch_sub(1, std::memory_order_release);
  }

  void run_parts(int64_t begin, int64_t end, bool launching) {
    int64_t part = 1;
    for (Clock::time_point before = Clock::now(); !stopped.load(std::memory_order_relaxed);) {
      launch.kernel(launch.args, launch.grid, begin, begin + part);
      begin += part;
      if (begin == end) return;
      const auto now = Clock::now();
      const double size = static_cast<double>(part), took = std::chrono::duration<double, std::nano>(now - before).count();
      part = static_cast<int64_t>(std::min(kPart / std::max(took, 1.0), kGrowth) * size);
      part = std::min(std::max<int64_t>(part, 1), end - begin);
      before = now;
      if (launching) poll_at(now);
    }
  }

  void poll_at(Clock::time_point now) {
    if (now - polled < kPollEvery) return;
    if (poll.stop(poll.context)) stopped = true;
    polled = Clock::now();
  }

  // The launching thread has run its chunks: until the others have theirs, it goes on polling.
  void wait() {
    if (!divided) return;
    constexpr auto kSpin = std::chrono::microseconds(1000), kNap = std::chrono::microseconds(500);
    const auto start = Clock::now();
    while (running.load(std::memory_order_acquire) > 0) {
      const auto now = Clock::now();
      if (now - start < kSpin) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(kNap);
        if (!stopped) poll_at(now);
      }
    }
  }
};

// A pool for builds of torch without OpenMP. It grows to what is asked for and lives as long as the process.
class Pool {
 public:
  void run(Job &job) {
    std::lock_guard<std::mutex> one_at_a_time(callers_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(threads_.size()) < job.chunks - 1) {
        const int index = static_cast<int>(threads_.size()) + 1;
        threads_.emplace_back([this, index, seen = generation_] { work(index, seen); });
      }
      job_ = &job;
      pending_ = static_cast<int>(threads_.size());
      ++generation_;
    }
    start_.notify_all();
    launching_ = true;
    job.run_chunk(0, true);
    job.wait();
    launching_ = false;
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
  }

  // Threads do not survive a fork, and a launch by a signal's handler must not wait for the launch that it is part of.
  bool usable() const { return pid_ == getpid() && !launching_; }

 private:
  void work(int index, uint64_t seen) {
    for (;;) {
      Job *job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        start_.wait(lock, [&] { return generation_ != seen; });
        seen = generation_;
        job = job_;
      }
      if (index < job->chunks) job->run_chunk(index, false);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--pending_ == 0) done_.notify_one();
    }
  }

  static thread_local bool launching_;
  std::mutex callers_, mutex_;
  std::condition_variable start_, done_;
  std::vector<std::thread> threads_;
  Job *job_ = nullptr;
  int pending_ = 0;
  uint64_t generation_ = 0;
  const pid_t pid_ = getpid();
};

thread_local bool Pool::launching_ = false;

void openmp_body(void *data) {
  auto *job = static_cast<Job *>(data);
  // The runtime may give fewer threads than were asked for; which thread runs a chunk never changes the result.
  const int step = openmp.num_threads(), first = openmp.thread_num();
  for (int chunk = first; chunk < job->chunks; chunk += step) job->run_chunk(chunk, first == 0);
  if (first == 0) job->wait();
}

}  // namespace

int worthwhile_threads(double nanoseconds, int64_t programs, int limit) {
  // Forking and joining two of torch's OpenMP threads measured 1.3 us while they spin after their last region and
  // tens of us once they sleep: little work is best done where it is, and 10 us a thread keeps the hot join near a
  // tenth of the gain.
  constexpr double kSplitFrom = 20e3, kPerThread = 10e3;
  if (nanoseconds < kSplitFrom || limit < 2 || programs < 2) return 1;
  const int64_t by_work = static_cast<int64_t>(std::min(nanoseconds / kPerThread, 1e6));
  return static_cast<int>(std::min<int64_t>({by_work, programs, limit}));
}

Outcome run_launch(const Launch &launch, int threads, const Poll &poll, std::string &failure) {
  Job job(launch, poll, threads, failure);
  if (threads > 1 && openmp.parallel) {
    openmp.parallel(openmp_body, &job, static_cast<unsigned>(threads), 0);
  } else if (threads > 1) {
    static Pool *pool = new Pool;  // never destroyed: its threads may outlive static destructors
    if (!pool->usable()) {
      for (int chunk = 0; chunk < threads; ++chunk) job.run_chunk(chunk, true);
    } else {
      pool->run(job);
    }
  } else {
    job.run_chunk(0, true);
  }
  if (job.stopped) return Outcome::stopped;
  return job.failed_chunk == threads ? Outcome::passed : Outcome::failed;
}

extern "C" void torchport_assert_fail(const char *message) {
  if (!escape) std::abort();  // called outside a launch: there is nowhere to go
  std::strncpy(escape->message, message, sizeof(escape->message) - 1);
  escape->message[sizeof(escape->message) - 1] = 0;
  _longjmp(escape->target, 1);
}

}  // namespace torchport

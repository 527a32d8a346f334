// One grid over torch's own threads, and assertions that leave a kernel in the middle.
#include "native.h"

#include <setjmp.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
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

struct Job {
  const Launch &launch;
  int chunks;
  std::mutex mutex;
  int failed_chunk;
  std::string &failure;

  void run_chunk(int chunk) {
    const int64_t begin = launch.programs * chunk / chunks, end = launch.programs * (chunk + 1) / chunks;
    Escape here;
    Escape *const outer = escape;
    escape = &here;
    const int failed = _setjmp(here.target);  // without the signal mask, which costs a system call on some systems
    if (!failed) launch.kernel(launch.args, launch.grid, begin, end);
    escape = outer;
    if (!failed) return;
    std::lock_guard<std::mutex> lock(mutex);
    if (chunk < failed_chunk) {
      failed_chunk = chunk;
      failure = here.message;
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
    job.run_chunk(0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return pending_ == 0; });
  }

  bool usable() const { return pid_ == getpid(); }  // threads do not survive a fork

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
      if (index < job->chunks) job->run_chunk(index);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--pending_ == 0) done_.notify_one();
    }
  }

  std::mutex callers_, mutex_;
  std::condition_variable start_, done_;
  std::vector<std::thread> threads_;
  Job *job_ = nullptr;
  int pending_ = 0;
  uint64_t generation_ = 0;
  const pid_t pid_ = getpid();
};

void openmp_body(void *data) {
  auto *job = static_cast<Job *>(data);
  // The runtime may give fewer threads than were asked for; which thread runs a chunk never changes the result.
  const int step = openmp.num_threads();
  for (int chunk = openmp.thread_num(); chunk < job->chunks; chunk += step) job->run_chunk(chunk);
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

bool run_launch(const Launch &launch, int threads, std::string &failure) {
  Job job{launch, threads, {}, threads, failure};
  if (threads > 1 && openmp.parallel) {
    openmp.parallel(openmp_body, &job, static_cast<unsigned>(threads), 0);
  } else if (threads > 1) {
    static Pool *pool = new Pool;  // never destroyed: its threads may outlive static destructors
    if (!pool->usable()) {
      for (int chunk = 0; chunk < threads; ++chunk) job.run_chunk(chunk);
    } else {
      pool->run(job);
    }
  } else {
    job.run_chunk(0);
  }
  return job.failed_chunk == threads;
}

extern "C" void torchport_assert_fail(const char *message) {
  if (!escape) std::abort();  // called outside a launch: there is nowhere to go
  std::strncpy(escape->message, message, sizeof(escape->message) - 1);
  escape->message[sizeof(escape->message) - 1] = 0;
  _longjmp(escape->target, 1);
}

}  // namespace torchport

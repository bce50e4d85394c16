#include "base/threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include <unistd.h>

#include "base/float_env.h"

namespace netsuke {
namespace {

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// How long an idle worker spins before it sleeps. Layers of a small network follow each other within tens of
// microseconds and a futex wake-up costs 5 to 50 us, so 80 us covers the gaps and still frees the core soon after a run.
constexpr auto kSpin = std::chrono::microseconds(80);
// pause takes about 40 cycles on Zen and 140 on Skylake and later; the clock is read once in this many.
constexpr int kPausesPerClockRead = 32;
// The caller waits for workers that still run a task; after this many pauses somebody else needs the core.
constexpr int kPausesBeforeYield = 2000;

}  // namespace

// A job is open while its caller has not yet run out of tasks. A worker first counts itself in `active`, then looks whether a
// job is open; the caller first closes the job, then waits for `active` to reach zero. Both orders are sequentially consistent, so
// a worker either sees the job closed or is waited for: a late worker never touches a finished job, and the caller never
// waits for a worker that did not wake up in time.
//
// Every thread begins with its own share of the tasks, the same part of every job, and then helps the others. Operators number their tasks
// along rows, so a thread finds in its own second-level cache most of what it wrote as part of the previous layer.
struct ThreadPool::Impl {
  struct alignas(64) Share {
    std::atomic<int64_t> next{0};
    int64_t end = 0;
  };

  int threads = 1;
  pid_t owner = 0;
  Team team = nullptr;
  std::atomic<int> joined{0};
  std::vector<std::thread> workers;

  alignas(64) std::atomic<bool> busy{false};
  // One line tells a worker all of a job: on hosts that run the two cores far apart each further line costs it 0.1 to 0.3 us.
  alignas(64) std::atomic<uint32_t> epoch{0};
  std::atomic<bool> open{false};
  std::atomic<bool> stop{false};
  Task task = nullptr;
  const void* context = nullptr;
  std::unique_ptr<Share[]> shares;
  alignas(64) std::atomic<int> active{0};
  alignas(64) std::atomic<int> sleepers{0};
  std::mutex mutex;
  std::condition_variable wake;

  void divide(int64_t tasks) {
    for (int t = 0; t < threads; ++t) {
      shares[t].next.store(tasks * t / threads, std::memory_order_relaxed);
      shares[t].end = tasks * (t + 1) / threads;
    }
  }

  void drain(int thread) {
    for (int i = 0; i < threads; ++i) {
      Share& share = shares[thread + i < threads ? thread + i : thread + i - threads];
      while (share.next.load(std::memory_order_relaxed) < share.end) {
        const int64_t index = share.next.fetch_add(1, std::memory_order_relaxed);
        if (index < share.end) task(context, index, thread);
      }
    }
  }

  static void join_team(void* data) {
    const FloatEnv environment;
    auto* pool = static_cast<Impl*>(data);
    pool->drain(pool->joined.fetch_add(1, std::memory_order_relaxed));
  }

  void join_job(int thread) {
    active.fetch_add(1);
    if (open.load()) drain(thread);
    active.fetch_sub(1, std::memory_order_release);
  }

  // Returns when the epoch is no longer `seen` or the pool stops.
  void wait_for_epoch(uint32_t seen) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    do {
      for (int i = 0; i < kPausesPerClockRead; ++i) {
        if (epoch.load(std::memory_order_acquire) != seen || stop.load(std::memory_order_relaxed)) return;
        pause_cpu();
      }
    } while (std::chrono::steady_clock::now() < deadline);
    std::unique_lock<std::mutex> lock(mutex);
    sleepers.fetch_add(1);
    wake.wait(lock, [&] { return epoch.load() != seen || stop.load(); });
    sleepers.fetch_sub(1);
  }

  void work(int thread) {
    const FloatEnv environment;  // a new thread inherits its creator's
    uint32_t seen = 0;
    for (;;) {
      wait_for_epoch(seen);
      if (stop.load()) return;
      seen = epoch.load();
      join_job(thread);
    }
  }

  void wake_sleepers(int64_t wanted) {
    const int asleep = sleepers.load();
    if (asleep == 0) return;
    { std::lock_guard<std::mutex> lock(mutex); }
    if (wanted >= asleep) {
      wake.notify_all();
    } else {
      for (int64_t i = 0; i < wanted; ++i) wake.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int threads) : impl_(new Impl) {
  impl_->owner = getpid();
  const int wanted = std::max(1, threads);
  try {
    for (int i = 1; i < wanted; ++i) impl_->workers.emplace_back([impl = impl_.get(), i] { impl->work(i); });
  } catch (const std::system_error&) {
    // A limit on threads (ulimit, cgroup): threads() tells how many there are.
  }
  impl_->threads = static_cast<int>(impl_->workers.size()) + 1;
  impl_->shares.reset(new Impl::Share[static_cast<size_t>(impl_->threads)]);
}

ThreadPool::ThreadPool(int threads, Team team) : impl_(new Impl) {
  impl_->owner = getpid();
  impl_->threads = std::max(1, threads);
  impl_->team = team;
  impl_->shares.reset(new Impl::Share[static_cast<size_t>(impl_->threads)]);
}

ThreadPool::~ThreadPool() {
  if (getpid() != impl_->owner) {
    // In a forked child the workers do not exist and the mutex may be held by one of them: leave everything as it is.
    for (std::thread& worker : impl_->workers) worker.detach();
    impl_.release();
    return;
  }
  {
    std::lock_guard<std::mutex> lock(impl_->mutex);
    impl_->stop.store(true);
  }
  impl_->wake.notify_all();
  for (std::thread& worker : impl_->workers) worker.join();
}

int ThreadPool::threads() const { return impl_->threads; }

void ThreadPool::run(int64_t tasks, Task task, const void* context) {
  Impl& pool = *impl_;
  const bool alone = tasks <= 1 || pool.threads == 1 || getpid() != pool.owner;
  if (alone || pool.busy.exchange(true, std::memory_order_acquire)) {
    for (int64_t i = 0; i < tasks; ++i) task(context, i, 0);
    return;
  }
  pool.task = task;
  pool.context = context;
  pool.divide(tasks);
  if (pool.team != nullptr) {
    pool.joined.store(0, std::memory_order_relaxed);
    pool.team(&Impl::join_team, &pool, static_cast<unsigned>(std::min<int64_t>(pool.threads, tasks)), 0);
    pool.busy.store(false, std::memory_order_release);
    return;
  }
  pool.open.store(true);
  pool.epoch.fetch_add(1);
  pool.wake_sleepers(tasks - 1);
  pool.drain(0);
  pool.open.store(false);
  for (int spins = 0; pool.active.load() != 0; ++spins) {
    if (spins < kPausesBeforeYield) {
      pause_cpu();
    } else {
      std::this_thread::yield();
    }
  }
  pool.busy.store(false, std::memory_order_release);
}

}  // namespace netsuke

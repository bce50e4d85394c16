// The engine's thread pool: n - 1 workers plus the caller. Workers spin for a short while before they sleep, so that
// consecutive layers do not pay a wake-up. Work is split into tasks that own disjoint outputs; which thread runs a task is decided
// while they run and never changes a result.
#ifndef NETSUKE_BASE_THREADS_H_
#define NETSUKE_BASE_THREADS_H_

#include <cstdint>
#include <memory>

namespace netsuke {

class ThreadPool {
 public:
  // GOMP_parallel of an OpenMP runtime: runs function(data) on a team of `threads` threads, the caller among them.
  using Team = void (*)(void (*function)(void*), void* data, unsigned threads, unsigned flags);

  explicit ThreadPool(int threads);
  // No workers of its own: tasks run on the team that the OpenMP runtime keeps for the calling thread. For a process whose other
  // library uses OpenMP too: its idle threads spin for milliseconds on the cores that a second pool would need.
  ThreadPool(int threads, Team team);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  // Calls body(task, thread) for every task in [0, tasks), 0 <= thread < threads(); returns when all are done. A second
  // caller that finds the pool busy runs its tasks on its own thread. With one task or one thread nothing is woken.
  template <typename Body>
  void parallel_for(int64_t tasks, const Body& body) {
    run(tasks, [](const void* context, int64_t task, int thread) { (*static_cast<const Body*>(context))(task, thread); }, &body);
  }

 private:
  using Task = void (*)(const void* context, int64_t task, int thread);
  void run(int64_t tasks, Task task, const void* context);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// One for each physical core this process may run on (its affinity mask and its CPU quota count): two threads of a core share
// its multipliers, so more threads make integer kernels slower.
int default_threads();

}  // namespace netsuke

#endif  // NETSUKE_BASE_THREADS_H_

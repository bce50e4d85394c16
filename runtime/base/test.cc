// Status texts, aligned buffers, CPU detection, the float environment and the thread pool.
#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/check.h"
#include "base/cpu.h"
#include "base/float_env.h"
#include "base/status.h"
#include "base/threads.h"

namespace netsuke {
namespace {

void test_status() {
  CHECK(Status().ok());
  const Status status = error(Code::kCorruptFile, "layer %d of %s", 3, "resnet");
  CHECK(!status.ok() && status.code() == Code::kCorruptFile && status.message() == "layer 3 of resnet");
  const std::string name(2000, 'x');
  CHECK(error(Code::kInternal, "%s!", name.c_str()).message() == name + "!");
}

void test_buffer() {
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{63}, size_t{4096}, size_t{5} << 20}) {
    Buffer buffer;
    CHECK_OK(buffer.allocate(bytes));
    CHECK(buffer.data() != nullptr && buffer.bytes() == bytes);
    CHECK(reinterpret_cast<uintptr_t>(buffer.data()) % kAlign == 0);
    std::memset(buffer.data(), 1, bytes);
    Buffer moved = std::move(buffer);
    CHECK(buffer.data() == nullptr && moved.bytes() == bytes);
    moved = Buffer();
    CHECK(moved.data() == nullptr);
  }
  Buffer buffer;
  CHECK(buffer.allocate(SIZE_MAX).code() == Code::kOutOfMemory);
  CHECK(buffer.allocate(size_t{1} << 62).code() == Code::kOutOfMemory);
  CHECK(align_up(0) == 0 && align_up(1) == 64 && align_up(64) == 64);
}

void test_checked() {
  int64_t out = 0;
  CHECK(checked_mul(1 << 20, 1 << 20, &out) && out == int64_t{1} << 40);
  CHECK(!checked_mul(int64_t{1} << 40, int64_t{1} << 40, &out));
  CHECK(!checked_mul(-1, 5, &out));
  CHECK(!checked_add(INT64_MAX, 1, &out));
}

void test_cpu() {
  const std::vector<Isa> isas = compiled_isas();
  CHECK(!isas.empty() && isas.back() == Isa::kPortable);
  CHECK(isa_available(Isa::kPortable) && isa_available(best_isa()));
  for (Isa isa : isas) {
    Isa read = Isa::kPortable;
    CHECK(isa_from_name(isa_name(isa), &read) && read == isa);
    if (isa_available(isa)) CHECK(static_cast<int>(isa) <= static_cast<int>(best_isa()) || best_isa() == isa);
  }
  Isa unused;
  CHECK(!isa_from_name("mmx", &unused));
  if (!isa_available(Isa::kAvx512Vnni)) CHECK(!cpu_features().avx512_bf16 && !cpu_features().avx512_gfni && !cpu_features().avx512_vbmi);
#if defined(__x86_64__)
  CHECK(isa_available(Isa::kAvx2) == (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")));
  CHECK(!isa_available(Isa::kNeon));
#endif
#if defined(__aarch64__)
  CHECK(isa_available(Isa::kNeon) && !isa_available(Isa::kAvx2));
#endif
}

void test_shared_buffers() {
  const auto fill = [](Buffer* buffer, size_t bytes, int value) {
    if (!buffer->allocate_shared(bytes).ok() || buffer->bytes() != bytes) return false;
    std::memset(buffer->data(), value, bytes);
    return reinterpret_cast<uintptr_t>(buffer->data()) % kAlign == 0;
  };
  const auto holds = [](const Buffer& buffer, int value) {
    for (size_t i = 0; i < buffer.bytes(); ++i) {
      if (buffer.data()[i] != value) return false;
    }
    return true;
  };
  Buffer a, b, c, empty, large;
  CHECK(fill(&a, 100, 1));
  CHECK(fill(&b, size_t{3} << 20, 2));
  b.trim(1000);
  CHECK(fill(&c, 5000, 3));  // over what b gave back
  CHECK(b.bytes() == 1000 && holds(a, 1) && holds(b, 2) && holds(c, 3));
  CHECK(empty.allocate_shared(0).ok() && empty.data() != nullptr);
  CHECK(fill(&large, size_t{40} << 20, 4));
  b.trim(10);  // not the last one: it only forgets its end
  Buffer moved(std::move(b));
  a.release();
  CHECK(fill(&a, 70, 5));
  CHECK(moved.bytes() == 10 && holds(moved, 2) && holds(c, 3) && holds(a, 5) && holds(large, 4));
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < 20; ++round) {
        std::vector<Buffer> buffers(12);
        for (size_t i = 0; i < buffers.size(); ++i) wrong += !fill(&buffers[i], (i + 1) * 40000, t * 16 + static_cast<int>(i));
        for (size_t i = 0; i < buffers.size(); ++i) wrong += !holds(buffers[i], t * 16 + static_cast<int>(i));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0 && holds(moved, 2) && holds(c, 3) && holds(a, 5));
}

float denormal_product(volatile float x) { return x * 0.5f; }

void test_float_env() {
#if defined(__x86_64__)
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);  // flush to zero, denormals are zero
  CHECK(denormal_product(1.5e-38f) == 0.0f);
  {
    const FloatEnv environment;
    CHECK(denormal_product(1.5e-38f) > 0.0f);
  }
  CHECK(denormal_product(1.5e-38f) == 0.0f);  // the caller's setting is back
  _mm_setcsr(before);
#endif
  CHECK(denormal_product(1.5e-38f) > 0.0f);
}

void test_every_task_once(int threads, int64_t tasks) {
  ThreadPool pool(threads);
  CHECK(pool.threads() == threads);
  std::vector<std::atomic<int>> runs(static_cast<size_t>(tasks));
  std::atomic<bool> bad_thread{false};
  for (int repeat = 0; repeat < 50; ++repeat) {
    pool.parallel_for(tasks, [&](int64_t task, int thread) {
      runs[static_cast<size_t>(task)].fetch_add(1);
      if (thread < 0 || thread >= threads) bad_thread = true;
    });
  }
  bool all = true;
  for (auto& count : runs) all = all && count == 50;
  CHECK(all && !bad_thread);
}

void test_nested_and_contended() {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  pool.parallel_for(8, [&](int64_t, int) { pool.parallel_for(8, [&](int64_t task, int) { sum += task; }); });
  CHECK(sum == 8 * 28);
  std::vector<std::thread> callers;
  std::atomic<int64_t> total{0};
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 500; ++repeat) {
        std::vector<int64_t> squares(16, -1);  // results of a call are complete when it returns
        pool.parallel_for(16, [&](int64_t task, int) { squares[static_cast<size_t>(task)] = task * task; });
        for (int64_t square : squares) total += square;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(total == int64_t{4} * 500 * 1240);
}

void test_sleep_and_wake() {
  ThreadPool pool(2);
  for (int repeat = 0; repeat < 20; ++repeat) {
    usleep(500);  // longer than workers spin
    std::atomic<int> count{0};
    pool.parallel_for(4, [&](int64_t, int) { ++count; });
    CHECK(count == 4);
  }
}

void test_fork() {
  ThreadPool pool(2);
  std::atomic<int> count{0};
  pool.parallel_for(4, [&](int64_t, int) { ++count; });
  const pid_t child = fork();
  if (child == 0) {  // workers do not exist here: tasks run on the caller
    pool.parallel_for(100, [&](int64_t, int) { ++count; });
    _exit(count == 104 ? 0 : 1);
  }
  int status = 1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}

}  // namespace
}  // namespace netsuke

int main() {
  using namespace netsuke;
  test_status();
  test_buffer();
  test_checked();
  test_cpu();
  test_shared_buffers();
  test_float_env();
  for (int threads : {1, 2, 4}) {
    for (int64_t tasks : {0, 1, 2, 3, 100}) test_every_task_once(threads, tasks);
  }
  test_nested_and_contended();
  test_sleep_and_wake();
  test_fork();
  CHECK(default_threads() >= 1);
  return check_result();
}

// default_threads: how many cores this process may use.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#endif

#include "base/threads.h"

namespace netsuke {
namespace {

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// CPUs granted by a container's quota (cgroup 2), rounded up; a large number when there is none.
int quota() {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string allowed;
  double period = 0;
  if (!(file >> allowed >> period) || allowed == "max" || period <= 0) return 1 << 20;
  double micros = 0;
  for (char c : allowed) {
    if (c < '0' || c > '9') return 1 << 20;
    micros = micros * 10 + (c - '0');
  }
  return std::max(1, static_cast<int>(std::ceil(micros / period)));
}

// Physical cores in the affinity mask. A machine without topology files counts every CPU.
int allowed_cores() {
#if defined(__linux__)
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) {
    std::set<std::string> cores;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &mask)) continue;
      const std::string siblings =
          first_line("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
      cores.insert(siblings.empty() ? "cpu " + std::to_string(cpu) : siblings);
    }
    if (!cores.empty()) return static_cast<int>(cores.size());
  }
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace

int default_threads() { return std::max(1, std::min(allowed_cores(), quota())); }

}  // namespace netsuke

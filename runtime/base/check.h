// What the C++ tests share: CHECK counts failures and says where; run_checks prints the verdict and gives the exit status.
#ifndef NETSUKE_BASE_CHECK_H_
#define NETSUKE_BASE_CHECK_H_

#include <cstdio>

namespace netsuke {

inline int& check_failures() {
  static int failures = 0;
  return failures;
}

inline int& check_count() {
  static int count = 0;
  return count;
}

inline bool check(bool condition, const char* text, const char* file, int line) {
  ++check_count();
  if (!condition && ++check_failures() <= 50) std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, text);
  return condition;
}

inline int check_result() {
  std::printf("%d checks, %d failed\n", check_count(), check_failures());
  return check_failures() == 0 && check_count() > 0 ? 0 : 1;
}

}  // namespace netsuke

#define CHECK(condition) ::netsuke::check(static_cast<bool>(condition), #condition, __FILE__, __LINE__)
#define CHECK_OK(expression)                                                                 \
  do {                                                                                       \
    const ::netsuke::Status check_status_ = (expression);                                    \
    ::netsuke::check(check_status_.ok(), check_status_.message().c_str(), __FILE__, __LINE__); \
  } while (0)

#endif  // NETSUKE_BASE_CHECK_H_

// Errors as values. No exceptions cross the C boundary, nothing prints, nothing aborts.
#ifndef NETSUKE_BASE_STATUS_H_
#define NETSUKE_BASE_STATUS_H_

#include <cstdarg>
#include <string>
#include <utility>

namespace netsuke {

enum class Code : int {
  kOk = 0,
  kInvalidArgument = 1,  // the caller's input: wrong shape, dtype, name
  kCorruptFile = 2,      // the .nsk file is damaged or hostile
  kUnsupported = 3,      // valid, but this build or CPU has no code for it
  kOutOfMemory = 4,
  kInternal = 5,         // a bug of netsuke
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}
  bool ok() const { return code_ == Code::kOk; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  Code code_ = Code::kOk;
  std::string message_;
};

// printf-style message.
Status error(Code code, const char* format, ...) __attribute__((format(printf, 2, 3)));

#define NETSUKE_TRY(expression)                       \
  do {                                                \
    ::netsuke::Status netsuke_try_status_ = (expression); \
    if (!netsuke_try_status_.ok()) return netsuke_try_status_; \
  } while (0)

}  // namespace netsuke

#endif  // NETSUKE_BASE_STATUS_H_

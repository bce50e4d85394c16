#include "base/status.h"

#include <cstdio>
#include <vector>

namespace netsuke {

Status error(Code code, const char* format, ...) {
  char fixed[512];
  va_list args;
  va_start(args, format);
  va_list again;
  va_copy(again, args);
  const int length = std::vsnprintf(fixed, sizeof fixed, format, args);
  va_end(args);
  std::string message;
  if (length < 0) {
    message = format;
  } else if (static_cast<size_t>(length) < sizeof fixed) {
    message.assign(fixed, static_cast<size_t>(length));
  } else {
    std::vector<char> longer(static_cast<size_t>(length) + 1);
    std::vsnprintf(longer.data(), longer.size(), format, again);
    message.assign(longer.data(), static_cast<size_t>(length));
  }
  va_end(again);
  return Status(code, std::move(message));
}

}  // namespace netsuke

#include "base/choices.h"

#include <algorithm>
#include <mutex>

namespace netsuke {
namespace {

std::mutex g_mutex;
std::map<std::string, std::string>& table() {
  static std::map<std::string, std::string> choices;
  return choices;
}

}  // namespace

void set_choices(std::map<std::string, std::string> choices) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  table() = std::move(choices);
}

std::string chosen(const std::string& key, const std::vector<std::string>& ways) {
  const std::lock_guard<std::mutex> lock(g_mutex);
  for (const std::string& name : {key, std::string("*")}) {
    const auto found = table().find(name);
    if (found != table().end() && std::find(ways.begin(), ways.end(), found->second) != ways.end()) return found->second;
  }
  return "";
}

}  // namespace netsuke

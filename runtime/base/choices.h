// Which way of computing a layer was measured fastest on this machine: names by the layer's key, given by whoever measured
// (src/netsuke/engine/tuning.py) before a program is loaded. Ways differ in time only, never in a result.
#ifndef NETSUKE_BASE_CHOICES_H_
#define NETSUKE_BASE_CHOICES_H_

#include <map>
#include <string>
#include <vector>

namespace netsuke {

// Replaces all choices of the process; layers built from now on follow them. The key "*" stands for every layer without one of its own.
void set_choices(std::map<std::string, std::string> choices);
// The choice for a key if it is one of the ways the layer has, else "".
std::string chosen(const std::string& key, const std::vector<std::string>& ways);

}  // namespace netsuke

#endif  // NETSUKE_BASE_CHOICES_H_

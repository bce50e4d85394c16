// A mutation fuzzer for the loader, the planner and the kernels behind them: fuzz_load_graph MUTATIONS [SEED [FILE...]].
// Each mutant of a valid .nsk is loaded, planned and run on tiny inputs. It may fail with a status, never crash, hang, print or
// leak; run it under AddressSanitizer and UndefinedBehaviorSanitizer. CI runs 2,000 mutations, a release 100,000.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "graph/engine.h"
#include "graph/sample.h"

namespace netsuke {
namespace {

constexpr int64_t kMaxBytes = 16 << 20;  // of tensors: mutants that ask for more are refused by the planner
constexpr double kSlowSeconds = 20;      // of processor time for one mutant: a hang in the making is a failure

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_ >> 11;
  }
  size_t below(size_t limit) { return limit == 0 ? 0 : static_cast<size_t>(next() % limit); }

 private:
  uint64_t state_;
};

// Words that matter to a parser of numbers, shapes and names.
const char* const kWords[] = {"0",    "1",   "2",   "-1",  "255",    "256",     "2147483647", "4294967296", "9223372036854775807",
                              "-9223372036854775808", "1e38", "1e-45", "0.5", "[]", "[0]", "{}", "\"\"", "null", "true", "[1,1,1,1]",
                              "\"f32\"", "\"u8\"", "\"i64\"", "\"bool\"", "\"x\"", "\"N\"", "\"none\"", "\"relu\""};

// Replaces one number, string or list of the JSON text by a word, keeping the text well-formed most of the time.
void mutate_token(std::string* text, Random* random) {
  const char* const ends = ",]}:";
  size_t begin = random->below(text->size());
  while (begin < text->size() && std::strchr("0123456789-\"tfn", (*text)[begin]) == nullptr) ++begin;
  size_t end = begin;
  if (begin < text->size() && (*text)[begin] == '"') {
    end = text->find('"', begin + 1);
    end = end == std::string::npos ? text->size() : end + 1;
  } else {
    while (end < text->size() && std::strchr(ends, (*text)[end]) == nullptr) ++end;
  }
  text->replace(begin, end - begin, kWords[random->below(sizeof kWords / sizeof kWords[0])]);
}

// Changes one number a little or a lot: what passes the parser and reaches shapes and attributes.
void mutate_number(std::string* text, Random* random) {
  const char* const digits = "0123456789";
  size_t begin = text->find_first_of(digits, random->below(text->size()));
  if (begin == std::string::npos) begin = text->find_first_of(digits);
  if (begin == std::string::npos) return;
  const size_t end = std::min(text->find_first_not_of(digits, begin), text->size());
  const long long value = std::strtoll(text->substr(begin, std::min<size_t>(end - begin, 18)).c_str(), nullptr, 10);
  const long long nearby[] = {value + 1, value > 0 ? value - 1 : 0, value * 2, value / 2, 0, 1, 2, 3, 255, 256, -1, 100000, 1LL << 40};
  text->replace(begin, end - begin, std::to_string(nearby[random->below(sizeof nearby / sizeof nearby[0])]));
}

void mutate_bytes(std::string* text, Random* random) {
  if (text->empty()) return;
  const size_t at = random->below(text->size());
  switch (random->below(5)) {
    case 0: (*text)[at] = static_cast<char>(random->next()); break;
    case 1: (*text)[at] = static_cast<char>((*text)[at] ^ (1 << random->below(8))); break;
    case 2: text->erase(at, 1 + random->below(8)); break;
    case 3: text->insert(at, text->substr(random->below(text->size()), 1 + random->below(40))); break;
    default: text->resize(at); break;
  }
}

// Takes the program out of a file, so that its text can be changed and the lengths around it stay right.
bool take_program(const std::string& file, std::string* program, std::vector<SampleTensor>* tensors) {
  SafeTensors parsed;
  if (!parse_safetensors(reinterpret_cast<const uint8_t*>(file.data()), file.size(), &parsed).ok()) return false;
  if (parsed.metadata.size() != 1) return false;
  *program = parsed.metadata[0].second;
  static const char* const kTypes[] = {"F32", "BF16", "U8", "I8", "I32", "I64", "BOOL"};
  for (const FileTensor& tensor : parsed.tensors) {
    std::string shape = "[";
    for (int d = 0; d < tensor.shape.rank; ++d) shape += (d == 0 ? "" : ",") + std::to_string(tensor.shape.dim[d]);
    tensors->push_back({tensor.name, kTypes[static_cast<int>(tensor.dtype)], shape + "]",
                        std::string(reinterpret_cast<const char*>(tensor.data), tensor.bytes)});
  }
  return true;
}

std::string mutant(const std::string& seed_file, Random* random) {
  std::string program;
  std::vector<SampleTensor> tensors;
  const size_t kind = random->below(20);
  if (kind == 0 || !take_program(seed_file, &program, &tensors)) {  // the container itself
    std::string file = seed_file;
    for (size_t i = 0; i <= random->below(4); ++i) mutate_bytes(&file, random);
    return file;
  }
  for (size_t i = 0; i <= random->below(3); ++i) {
    if (kind < 4) {
      mutate_token(&program, random);
    } else if (kind == 4) {
      mutate_bytes(&program, random);
    } else if (kind < 12 || tensors.empty()) {
      mutate_number(&program, random);
    } else {
      SampleTensor& tensor = tensors[random->below(tensors.size())];
      if (kind == 12) {
        mutate_token(&tensor.shape, random);
      } else if (!tensor.bytes.empty()) {  // small integers stay small half of the time: axes, sizes and pads
        tensor.bytes[random->below(tensor.bytes.size())] = static_cast<char>(random->next() & (random->below(2) == 0 ? 7 : 255));
      }
    }
  }
  return sample_file(program, tensors);
}

Shape tiny_shape(const Port& port, Random* random) {
  Shape shape;
  for (const Dim& dim : port.dims) {
    // Names that look like an image's size get enough pixels for a few strides; batches stay small, now and then empty.
    const int64_t free = dim.name[0] == 'N' ? static_cast<int64_t>(random->below(3)) : 1 + static_cast<int64_t>(random->below(9));
    shape.dim[shape.rank++] = dim.size >= 0 ? dim.size : free;
  }
  return shape;
}

// How far a mutant came.
enum Stage { kRefused, kLoaded, kPlanned, kRan, kStages };

Stage run_mutant(const std::string& file, Random* random) {
  std::unique_ptr<Engine> engine;
  const EngineOptions options{1 + static_cast<int>(random->below(2)), random->below(4) == 0 ? "portable" : "", kMaxBytes};
  if (!Engine::load_bytes(file.data(), file.size(), options, &engine).ok()) return kRefused;
  std::vector<Shape> shapes;
  for (const Port& port : engine->program().inputs) shapes.push_back(tiny_shape(port, random));
  std::vector<int> taps;
  if (random->below(4) == 0) taps.push_back(static_cast<int>(random->below(engine->program().values.size())));
  std::shared_ptr<const Plan> plan;
  if (!engine->plan(shapes, taps, &plan).ok()) return kLoaded;
  std::vector<Buffer> memory;
  const auto allocate = [&](const Tensor& tensor) {
    memory.emplace_back();
    const size_t bytes = static_cast<size_t>(tensor.shape.elements()) * dtype_size(tensor.dtype);
    if (!memory.back().allocate(bytes).ok()) std::abort();
    for (size_t i = 0; i < bytes; ++i) memory.back().data()[i] = static_cast<uint8_t>(tensor.dtype == DType::kBool ? i & 1 : random->next());
    return memory.back().data();
  };
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
  for (const Tensor& tensor : plan->inputs) inputs.push_back(allocate(tensor));
  for (const Tensor& tensor : plan->outputs) outputs.push_back(allocate(tensor));
  return engine->run(plan, inputs.data(), outputs.data()).ok() ? kRan : kPlanned;
}

std::vector<std::string> seed_files(int argc, char** argv) {
  std::vector<std::string> files;
  for (int i = 3; i < argc; ++i) {
    std::ifstream stream(argv[i], std::ios::binary);
    files.emplace_back((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  }
  if (files.empty()) files = {sample_movement(), sample_quantized(), sample_packed(), sample_tables(), sample_forms()};
  return files;
}

}  // namespace
}  // namespace netsuke

int main(int argc, char** argv) {
  using namespace netsuke;
  const long mutations = argc > 1 ? std::atol(argv[1]) : 2000;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
  const std::vector<std::string> files = seed_files(argc, argv);
  for (size_t i = 0; i < files.size(); ++i) {
    Random random(seed);
    Stage best = kRefused;
    for (int attempt = 0; attempt < 8; ++attempt) best = std::max(best, run_mutant(files[i], &random));  // shapes are random
    if (best == kRefused || (argc <= 3 && best != kRan)) {
      std::fprintf(stderr, "seed file %zu does not %s\n", i, best == kRefused ? "load" : "run");
      return 1;
    }
  }
  long stages[kStages] = {};
  double slowest = 0;
  for (long i = 0; i < mutations; ++i) {
    Random random(seed + static_cast<uint64_t>(i) + 1);
    const std::string file = mutant(files[static_cast<size_t>(i) % files.size()], &random);
    if (const char* keep = std::getenv("FUZZ_KEEP")) std::ofstream(keep, std::ios::binary) << file;  // the last one is the culprit
    const std::clock_t start = std::clock();
    ++stages[run_mutant(file, &random)];
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    slowest = std::max(slowest, seconds);
    if (seconds > kSlowSeconds) {
      std::fprintf(stderr, "mutation %ld of seed %llu took %.1f s\n", i, static_cast<unsigned long long>(seed), seconds);
      return 1;
    }
  }
  std::printf("%ld mutations: %ld refused, %ld loaded but not planned, %ld planned but stopped, %ld ran; slowest %.3f s\n", mutations,
              stages[kRefused], stages[kLoaded], stages[kPlanned], stages[kRan], slowest);
  return 0;
}

// netsuke-run: run a .nsk without Python. Random or raw-file inputs, load and run times, a table of layers.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "netsuke.hpp"

namespace {

constexpr const char* kUsage =
    "usage: netsuke-run MODEL.nsk [options]\n"
    "  --shape NAME=1,3,224,224   shape of an input; free dimensions are 1 otherwise\n"
    "  --input NAME=FILE          raw little-endian contents of an input; random otherwise (seed 0)\n"
    "  --output NAME=FILE         write an output as raw bytes\n"
    "  --threads N                default: one for each physical core\n"
    "  --isa NAME                 portable, avx2, avx512vnni, neon, neondot; default: the best here\n"
    "  --runs N                   timed runs after the first, default 50\n"
    "  --layers                   a row for each layer\n";

struct Options {
  std::string model, isa;
  std::map<std::string, std::string> shapes, inputs, outputs;
  int threads = 0, runs = 50;
  bool layers = false;
};

struct Failure {
  std::string message;
};

int number(const std::string& text, int least) {
  char* end = nullptr;
  const long value = std::strtol(text.c_str(), &end, 10);
  if (text.empty() || *end != '\0' || value < least || value > 1000000) throw Failure{"'" + text + "' is not a number from " + std::to_string(least)};
  return static_cast<int>(value);
}

void put(std::map<std::string, std::string>* table, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos) throw Failure{"'" + text + "' is not NAME=VALUE"};
  (*table)[text.substr(0, equals)] = text.substr(equals + 1);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) throw Failure{word + " needs a value"};
      return argv[++i];
    };
    if (word == "--layers") options.layers = true;
    else if (word == "--threads") options.threads = number(value(), 1);
    else if (word == "--runs") options.runs = number(value(), 1);
    else if (word == "--isa") options.isa = value();
    else if (word == "--shape") put(&options.shapes, value());
    else if (word == "--input") put(&options.inputs, value());
    else if (word == "--output") put(&options.outputs, value());
    else if (word.rfind("--", 0) == 0 || !options.model.empty()) throw Failure{"unknown argument '" + word + "'\n" + kUsage};
    else options.model = word;
  }
  if (options.model.empty()) throw Failure{kUsage};
  return options;
}

size_t element_bytes(int dtype) {
  switch (dtype) {
    case NETSUKE_U8: case NETSUKE_S8: case NETSUKE_BOOL: return 1;
    case NETSUKE_BF16: return 2;
    case NETSUKE_I64: return 8;
    default: return 4;
  }
}

const char* dtype_text(int dtype) {
  static const char* const names[] = {"f32", "bf16", "u8", "s8", "i32", "i64", "bool"};
  return dtype >= 0 && dtype <= NETSUKE_BOOL ? names[dtype] : "?";
}

std::string text_of(const nsk::Dims& dims) {
  std::string text = "[";
  for (size_t d = 0; d < dims.size(); ++d) text += (d == 0 ? "" : ", ") + std::to_string(dims[d]);
  return text + "]";
}

nsk::Dims dims_for(const netsuke_port& port, const Options& options) {
  nsk::Dims dims;
  const auto given = options.shapes.find(port.name);
  if (given == options.shapes.end()) {
    for (int d = 0; d < port.rank; ++d) dims.push_back(port.dims[d] < 0 ? 1 : port.dims[d]);
    return dims;
  }
  std::string rest = given->second + ",";
  for (size_t comma; (comma = rest.find(',')) != std::string::npos; rest = rest.substr(comma + 1)) {
    dims.push_back(number(rest.substr(0, comma), 0));
  }
  return dims;
}

// Small integers for codes and indices, numbers in [-1, 1) for f32: a fixed sequence, the same everywhere.
void fill_random(int dtype, std::vector<uint8_t>* bytes) {
  uint64_t state = 0x9e3779b97f4a7c15u;
  const auto next = [&] {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
  };
  const size_t size = element_bytes(dtype);
  for (size_t at = 0; at + size <= bytes->size(); at += size) {
    const uint64_t random = next() >> 40;  // 24 bits
    const float real = static_cast<float>(random) / 8388608.0f - 1.0f;
    const int64_t whole = dtype == NETSUKE_U8 ? static_cast<int64_t>(random & 0xff) : static_cast<int64_t>(random & 1);
    if (dtype == NETSUKE_F32) std::memcpy(bytes->data() + at, &real, size);
    else std::memcpy(bytes->data() + at, &whole, size);
  }
}

std::vector<uint8_t> contents(const netsuke_port& port, const nsk::Dims& dims, const Options& options) {
  size_t bytes = element_bytes(port.dtype);
  for (int64_t dim : dims) bytes *= static_cast<size_t>(dim);
  const auto file = options.inputs.find(port.name);
  if (file == options.inputs.end()) {
    std::vector<uint8_t> data(bytes);
    fill_random(port.dtype, &data);
    return data;
  }
  std::ifstream stream(file->second, std::ios::binary);
  if (!stream) throw Failure{"cannot read '" + file->second + "'"};
  std::vector<uint8_t> data((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  if (data.size() != bytes) {
    throw Failure{"'" + file->second + "' has " + std::to_string(data.size()) + " bytes, input '" + port.name + "' of shape " +
                  text_of(dims) + " needs " + std::to_string(bytes)};
  }
  return data;
}

void check_names(const nsk::Engine& engine, const Options& options) {
  const auto check = [&](const std::map<std::string, std::string>& table, bool input) {
    for (const auto& [name, value] : table) {
      bool known = false;
      const int count = input ? engine.inputs() : engine.outputs();
      for (int i = 0; i < count; ++i) known = known || name == (input ? engine.input(i) : engine.output(i)).name;
      if (!known) throw Failure{"the program has no " + std::string(input ? "input" : "output") + " '" + name + "'"};
    }
  };
  check(options.shapes, true);
  check(options.inputs, true);
  check(options.outputs, false);
}

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

double at_rank(std::vector<double> values, double rank) {
  std::sort(values.begin(), values.end());
  return values[std::min(values.size() - 1, static_cast<size_t>(rank * static_cast<double>(values.size())))];
}

void print_layers(const nsk::Engine& engine, const std::vector<std::vector<netsuke_step>>& runs) {
  const size_t steps = runs[0].size();
  std::vector<double> times(steps);
  double total = 0;
  for (size_t s = 0; s < steps; ++s) {
    std::vector<double> each;
    for (const auto& run : runs) each.push_back(static_cast<double>(run[s].nanoseconds) / 1e6);
    total += times[s] = at_rank(each, 0.5);
  }
  std::printf("\n%9s %6s %9s %9s  %-36s %s\n", "ms", "%", "Gmac/s", "GB/s", "kernel", "layer");
  for (size_t s = 0; s < steps; ++s) {
    const netsuke_step& step = runs[0][s];
    const netsuke_node node = engine.node(step.node);
    const double seconds = std::max(times[s], 1e-6) / 1e3;
    std::printf("%9.4f %6.1f %9.1f %9.1f  %-36s %s\n", times[s], 100 * times[s] / std::max(total, 1e-9),
                static_cast<double>(step.macs) / seconds / 1e9,
                static_cast<double>(step.bytes_read + step.bytes_written) / seconds / 1e9, node.kernel, node.name);
  }
}

struct Job {
  std::vector<std::vector<uint8_t>> inputs, outputs;
  std::vector<const void*> in;
  std::vector<void*> out;
};

int run(const Options& options) {
  const auto load_start = Clock::now();
  netsuke_options settings = {options.threads, options.isa.empty() ? nullptr : options.isa.c_str(), 0};
  const nsk::Engine engine(options.model, settings);
  const double load_ms = ms_since(load_start);
  check_names(engine, options);

  Job job;
  std::vector<nsk::Dims> shapes;
  for (int i = 0; i < engine.inputs(); ++i) {
    const netsuke_port port = engine.input(i);
    shapes.push_back(dims_for(port, options));
    job.inputs.push_back(contents(port, shapes.back(), options));
    job.in.push_back(job.inputs.back().data());
    std::printf("input   %s %s %s\n", port.name, dtype_text(port.dtype), text_of(shapes.back()).c_str());
  }
  const auto plan_start = Clock::now();
  const nsk::Plan plan = engine.plan(shapes);
  const double plan_ms = ms_since(plan_start);
  for (int i = 0; i < plan.outputs(); ++i) {
    const netsuke_port port = plan.output(i);
    job.outputs.emplace_back(static_cast<size_t>(plan.output_bytes(i)));
    job.out.push_back(job.outputs.back().data());
    std::printf("output  %s %s %s\n", port.name, dtype_text(port.dtype), text_of({port.dims, port.dims + port.rank}).c_str());
  }
  const auto first_start = Clock::now();
  plan.run(job.in, job.out);
  const double first_ms = ms_since(first_start);
  std::vector<double> times;
  for (int r = 0; r < options.runs; ++r) {
    const auto start = Clock::now();
    plan.run(job.in, job.out);
    times.push_back(ms_since(start));
  }
  std::printf("engine  netsuke %s, %s, %d threads\n", netsuke_version(), engine.isa().c_str(), engine.threads());
  std::printf("memory  file %.1f MB, packed weights %.1f MB, arena %.1f MB\n", static_cast<double>(netsuke_engine_file_bytes(engine.get())) / 1e6,
              static_cast<double>(netsuke_engine_packed_bytes(engine.get())) / 1e6, static_cast<double>(plan.arena_bytes()) / 1e6);
  std::printf("time    load %.2f ms, plan %.2f ms, first run %.3f ms, median %.3f ms, p90 %.3f ms, least %.3f ms (%d runs)\n", load_ms,
              plan_ms, first_ms, at_rank(times, 0.5), at_rank(times, 0.9), at_rank(times, 0.0), options.runs);
  if (options.layers) {
    std::vector<std::vector<netsuke_step>> profiles;
    for (int r = 0; r < options.runs; ++r) profiles.push_back(plan.profile(job.in, job.out));
    print_layers(engine, profiles);
  }
  for (int i = 0; i < plan.outputs(); ++i) {
    const auto file = options.outputs.find(plan.output(i).name);
    if (file == options.outputs.end()) continue;
    std::ofstream stream(file->second, std::ios::binary);
    stream.write(reinterpret_cast<const char*>(job.outputs[static_cast<size_t>(i)].data()), static_cast<std::streamsize>(job.outputs[static_cast<size_t>(i)].size()));
    if (!stream) throw Failure{"cannot write '" + file->second + "'"};
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(parse(argc, argv));
  } catch (const Failure& failure) {
    std::fprintf(stderr, "%s\n", failure.message.c_str());
    return 2;
  } catch (const nsk::Error& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 2;
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "%s\n", failure.what());
    return 1;
  }
}

// NVRTC: compiles CUDA C++ as host code with c++, into a library that the stub's driver loads. What it gives as PTX is the
// library's path, and the names of its kernels as PTX has them. Libraries and
// sources are kept in the folder that CUDA_STUB_CACHE names, under a hash of what they were made of.
#include <cstdint>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>
#include <sys/stat.h>
#include <sys/wait.h>
#include <vector>

#include "record.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

enum { SUCCESS = 0, INVALID_INPUT = 3, COMPILATION = 6 };
struct Program { std::string source, log, ptx; };

static std::string hash(const std::string& text) {
  uint64_t a = 14695981039346656037ull, b = 1099511628211ull;
  for (unsigned char c : text) { a = (a ^ c) * 1099511628211ull; b = (b + c) * 6364136223846793005ull + a; }
  char name[40];
  std::snprintf(name, sizeof name, "%016llx%016llx", (unsigned long long)a, (unsigned long long)b);
  return name;
}

static std::string read(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

static bool exists(const std::string& path) { struct stat s; return stat(path.c_str(), &s) == 0; }

// What the headers are worth: a change of them compiles all anew.
static const std::string& headers() {
  static const std::string all = [] {
    std::string text;
    for (const char* name : {"cuda_runtime.h", "cuda_bf16.h", "cuda_fp16.h", "half.h", "mma.h"})
      text += read(std::string(STUB_INCLUDE "/") + name);
    return hash(text);
  }();
  return all;
}

static bool shell(const std::string& command, const std::string& log) {
  return std::system((command + " >" + log + " 2>&1").c_str()) == 0;
}

static int compile(Program& program, const std::string& includes) {
  const char* folder = std::getenv("CUDA_STUB_CACHE");
  std::string cache = folder ? folder : "/tmp/cuda-stub-cache", name = hash(program.source + includes + headers());
  mkdir(cache.c_str(), 0755);
  std::string library = cache + "/" + name + ".so";
  char own[32];
  std::snprintf(own, sizeof own, ".%d.%p", (int)getpid(), (void*)&program);
  std::string base = cache + "/" + name + own;
  // What was given, for a compiler that knows GPUs.
  if (!exists(cache + "/" + name + ".cu")) {
    std::ofstream(base + ".cu") << program.source;
    std::rename((base + ".cu").c_str(), (cache + "/" + name + ".cu").c_str());
  }
  if (!exists(library)) {
    std::string source = std::regex_replace(program.source, std::regex("extern\\s+__shared__"), "extern");
    std::ofstream(base + ".cpp") << source;
    std::string flags = " -std=c++17 -w -fPIC -fvisibility=hidden -fno-gnu-unique -fno-strict-aliasing -ffp-contract=off"
        " -fno-math-errno -include " STUB_INCLUDE "/cuda_runtime.h" + includes;
    if (!shell("c++ -E -P" + flags + " " + base + ".cpp -o " + base + ".all.cpp", base + ".log")) {
      program.log = read(base + ".log");
      return COMPILATION;
    }
    std::string all = read(base + ".all.cpp"), entries, ptx = "stub " + library + "\n";
    const std::regex kernel("STUB_KERNEL\\s+void\\s+(\\w+)\\s*\\(");
    for (std::sregex_iterator at(all.begin(), all.end(), kernel), end; at != end; ++at) {
      std::string one = (*at)[1];
      entries += "extern \"C\" __attribute__((visibility(\"default\"))) const StubEntry stub_entry_" + one + " = StubKernel<" +
          one + ">::entry;\n";
      ptx += ".entry " + one + "(\n";
    }
    std::ofstream(base + ".all.cpp") << "#define STUB_KERNEL\n" << all << "\n" << entries;
    std::string build = "c++ -O2 -shared -std=c++17 -w -fPIC -fvisibility=hidden -fno-gnu-unique -fno-strict-aliasing"
        " -ffp-contract=off -fno-math-errno -fno-trapping-math " + base + ".all.cpp -lm -o " + base + ".so";
    if (!shell(build, base + ".log")) {
      program.log = read(base + ".log");
      // What could not be compiled stays, to be looked at.
      std::rename((base + ".cpp").c_str(), (cache + "/refused-" + name + ".cpp").c_str());
      std::rename((base + ".log").c_str(), (cache + "/refused-" + name + ".log").c_str());
      unlink((base + ".all.cpp").c_str());
      return COMPILATION;
    }
    std::ofstream(base + ".ptx") << ptx;
    std::rename((base + ".ptx").c_str(), (cache + "/" + name + ".ptx").c_str());
    std::rename((base + ".so").c_str(), library.c_str());
    unlink((base + ".cpp").c_str());
    unlink((base + ".all.cpp").c_str());
    unlink((base + ".log").c_str());
  }
  program.ptx = read(cache + "/" + name + ".ptx");
  return SUCCESS;
}

EXPORT int nvrtcVersion(int* major, int* minor) { *major = 13; *minor = 0; return SUCCESS; }

EXPORT const char* nvrtcGetErrorString(int result) {
  return result == SUCCESS ? "NVRTC_SUCCESS" : result == COMPILATION ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR";
}

EXPORT int nvrtcCreateProgram(Program** program, const char* source, const char*, int headers, const char* const*, const char* const*) {
  if (headers != 0) return INVALID_INPUT;
  *program = new Program{source, "", ""};
  return SUCCESS;
}

EXPORT int nvrtcDestroyProgram(Program** program) { delete *program; *program = nullptr; return SUCCESS; }

EXPORT int nvrtcCompileProgram(Program* program, int count, const char* const* options) {
  std::string includes;
  for (int i = 0; i < count; i++) {
    std::string option = options[i], path = "--include-path=";
    if (option.compare(0, path.size(), path) == 0) includes += " -I'" + option.substr(path.size()) + "'";
  }
  if (must_fail("nvrtcCompileProgram")) { program->log = "CUDA_STUB_FAIL"; return COMPILATION; }
  int result = compile(*program, includes);
  record("nvrtcCompileProgram %s %s", result == SUCCESS ? "ok" : "FAILED", program->ptx.c_str());
  return result;
}

EXPORT int nvrtcGetPTXSize(Program* program, size_t* size) { *size = program->ptx.size() + 1; return SUCCESS; }
EXPORT int nvrtcGetPTX(Program* program, char* to) { std::strcpy(to, program->ptx.c_str()); return SUCCESS; }
EXPORT int nvrtcGetProgramLogSize(Program* program, size_t* size) { *size = program->log.size() + 1; return SUCCESS; }
EXPORT int nvrtcGetProgramLog(Program* program, char* to) { std::strcpy(to, program->log.c_str()); return SUCCESS; }

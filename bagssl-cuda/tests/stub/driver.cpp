// The CUDA driver: one device, or as many as CUDA_STUB_DEVICES says, whose memory is the host's. Kernels are libraries that the
// stub's NVRTC has made. There are no tensor maps (`cuTensorMapEncode*`): nothing that runs here asks for one, but NVIDIA's cuDNN does
// not load without these names.
#include <chrono>
#include <cstddef>
#include <dlfcn.h>
#include <map>
#include <mutex>

#include "driver.hpp"
#include "fibers.hpp"
#include "queue.hpp"
#include "record.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

enum Result {
  SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_CONTEXT = 201, INVALID_SOURCE = 300,
  INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, INVALID_DEVICE = 101, LAUNCH_FAILED = 719, NOT_SUPPORTED = 801,
};

// A device's one context, with its streams and its memory: address to length.
struct Context {
  int device;
  Queues queues;
  std::map<uint64_t, size_t> memory;
  size_t used = 0;
};
struct Module { void* library; Block* block; Context* context; };
struct Function { std::string name; Module* module; const Entry* entry; int shared = 48 << 10; };

static size_t number_in(const char* name, size_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

struct State {
  std::recursive_mutex mutex;
  bool initialized = false;
  // By device. Never freed: streams and places name them.
  std::vector<Context*> contexts;
  Fibers fibers;
  // Pinned memory of the host: address to length.
  std::map<uint64_t, size_t> pinned;
  // Of each device.
  size_t total = number_in("CUDA_STUB_MEMORY", 8ull << 30);
  Result fault = SUCCESS;
  State() { for (size_t i = 0; i < number_in("CUDA_STUB_DEVICES", 1); i++) contexts.push_back(new Context{(int)i, {}, {}}); }
  bool has(int device) { return device >= 0 && (size_t)device < contexts.size(); }
  void finish_all() { for (Context* context : contexts) context->queues.finish_all(); }
};
static State& state() { static State* one = new State; return *one; }
static thread_local std::vector<Context*> current;

// The device's memory while nobody has written it: not a number in each format.
static const int POISON = 0xff;

#define BEGIN(NAME) \
  std::lock_guard<std::recursive_mutex> guard(state().mutex); \
  State& s = state(); \
  (void)s; \
  if (must_fail(NAME)) return std::strncmp(NAME, "cuMemAlloc", 10) == 0 ? OUT_OF_MEMORY : LAUNCH_FAILED; \
  if (!s.initialized) return NOT_INITIALIZED;
#define IN_CONTEXT(NAME) BEGIN(NAME) if (current.empty() || !current.back()) return INVALID_CONTEXT; Context& c = *current.back(); (void)c;

// What is done on a stream is done by its device; without one, by that of the calling thread.
#define ON_STREAM(NAME) IN_CONTEXT(NAME) if (!c.queues.has(stream)) return of_another(NAME);
static int of_another(const char* name) { record("! %s: a stream of another device", name); return INVALID_HANDLE; }

static int number(StubStream* stream) { return stream ? stream->number : current.back()->queues.of(nullptr)->number; }

// The block of memory that a range lies in, or the end of the map.
static bool lies_in(const std::map<uint64_t, size_t>& blocks, uint64_t at, size_t length) {
  auto above = blocks.upper_bound(at);
  if (above == blocks.begin()) return false;
  auto block = std::prev(above);
  return at + length <= block->first + block->second;
}

void stub_enqueue(StubStream* stream, const char* what, std::function<void()> work) {
  std::lock_guard<std::recursive_mutex> guard(state().mutex);
  record("%s stream=%d", what, number(stream));
  current.back()->queues.push(stream, {std::move(work), nullptr});
}

void stub_enqueue_together(const std::vector<StubStream*>& streams, std::function<void()> work) {
  std::lock_guard<std::recursive_mutex> guard(state().mutex);
  auto before = std::make_shared<Places>();
  for (StubStream* stream : streams) before->push_back({stream, stream->queued});
  Queues& queues = current.back()->queues;
  queues.push(streams[0], {std::move(work), before});
  auto after = std::make_shared<Places>(Places{{streams[0], streams[0]->queued}});
  for (size_t i = 1; i < streams.size(); i++) queues.push(streams[i], {nullptr, after});
}

// Device and contexts.

EXPORT int cuInit(unsigned) { std::lock_guard<std::recursive_mutex> guard(state().mutex); state().initialized = true; return SUCCESS; }
EXPORT int cuDriverGetVersion(int* version) { *version = 13000; return SUCCESS; }
EXPORT int cuDeviceGetCount(int* count) { BEGIN("cuDeviceGetCount") *count = (int)s.contexts.size(); return SUCCESS; }
EXPORT int cuDeviceGet(int* device, int index) { BEGIN("cuDeviceGet") *device = index; return s.has(index) ? SUCCESS : INVALID_DEVICE; }
EXPORT int cuDeviceGetName(char* name, int length, int) { std::snprintf(name, length, "Stub of a GPU"); return SUCCESS; }
EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int) { BEGIN("cuDeviceTotalMem") *bytes = s.total; return SUCCESS; }
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int) {
  static const std::map<int, int> values = {
      {1, 1024}, {2, 1024}, {3, 1024}, {4, 64},               // threads of a block; block's x, y, z
      {5, 2147483647}, {6, 65535}, {7, 65535},                // grid's x, y, z
      {8, 48 << 10}, {9, 64 << 10}, {10, 32}, {12, 65536},    // shared and constant memory, warp, registers
      {16, 132}, {39, 2048}, {75, 9}, {76, 0},                // processors, threads of one, capability
      {81, 228 << 10}, {97, 227 << 10}, {115, 1},             // shared memory of a processor, opt-in; memory pools
  };
  auto found = values.find(attribute);
  if (found == values.end()) { record("! cuDeviceGetAttribute %d is not known", attribute); return INVALID_VALUE; }
  *value = found->second;
  return SUCCESS;
}
EXPORT int cuDevicePrimaryCtxRetain(Context** context, int device) {
  BEGIN("cuDevicePrimaryCtxRetain")
  if (!s.has(device)) return INVALID_DEVICE;
  *context = s.contexts[device];
  return SUCCESS;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int) { BEGIN("cuDevicePrimaryCtxRelease") return SUCCESS; }
EXPORT int cuCtxSetCurrent(Context* context) {
  BEGIN("cuCtxSetCurrent")
  if (current.empty()) current.push_back(context); else current.back() = context;
  return SUCCESS;
}
EXPORT int cuCtxGetCurrent(Context** context) { BEGIN("cuCtxGetCurrent") *context = current.empty() ? nullptr : current.back(); return SUCCESS; }
EXPORT int cuCtxPushCurrent_v2(Context* context) { BEGIN("cuCtxPushCurrent") current.push_back(context); return SUCCESS; }
EXPORT int cuCtxPopCurrent_v2(Context** context) {
  IN_CONTEXT("cuCtxPopCurrent")
  if (context) *context = current.back();
  current.pop_back();
  return SUCCESS;
}
EXPORT int cuCtxGetDevice(int* device) { IN_CONTEXT("cuCtxGetDevice") *device = c.device; return SUCCESS; }
EXPORT int cuCtxSynchronize() {
  IN_CONTEXT("cuCtxSynchronize")
  record("cuCtxSynchronize");
  c.queues.finish_all();
  return s.fault;
}

EXPORT int cuGetErrorName(int error, const char** text) {
  static const std::map<int, const char*> names = {
      {SUCCESS, "CUDA_SUCCESS"}, {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"}, {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
      {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"}, {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
      {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
      {INVALID_SOURCE, "CUDA_ERROR_INVALID_SOURCE"}, {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"}, {NOT_READY, "CUDA_ERROR_NOT_READY"},
      {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"}, {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
  };
  auto found = names.find(error);
  *text = found == names.end() ? "CUDA_ERROR_UNKNOWN" : found->second;
  return SUCCESS;
}
EXPORT int cuGetErrorString(int error, const char** text) { return cuGetErrorName(error, text); }

// Memory.

static int allocate(uint64_t* at, size_t bytes, const char* name, int stream) {
  Context& c = *current.back();
  if (bytes == 0) return INVALID_VALUE;
  if (c.used + bytes > state().total) { record("! %s bytes=%zu is more than is left", name, bytes); return OUT_OF_MEMORY; }
  void* memory = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
  if (!memory) return OUT_OF_MEMORY;
  std::memset(memory, POISON, bytes);
  *at = (uint64_t)memory;
  c.memory[*at] = bytes;
  c.used += bytes;
  record("%s bytes=%zu used=%zu stream=%d", name, bytes, c.used, stream);
  return SUCCESS;
}

static int release(Context& c, uint64_t at) {
  auto found = c.memory.find(at);
  if (found == c.memory.end()) { record("! free of memory that is not there"); return INVALID_VALUE; }
  // What still uses it reads what is not a number.
  std::memset((void*)at, POISON, found->second);
  c.used -= found->second;
  c.memory.erase(found);
  std::free((void*)at);
  return SUCCESS;
}

EXPORT int cuMemAlloc_v2(uint64_t* at, size_t bytes) { IN_CONTEXT("cuMemAlloc") return allocate(at, bytes, "cuMemAlloc", -1); }
EXPORT int cuMemAllocAsync(uint64_t* at, size_t bytes, StubStream* stream) {
  ON_STREAM("cuMemAllocAsync")
  return allocate(at, bytes, "cuMemAllocAsync", number(stream));
}
EXPORT int cuMemFree_v2(uint64_t at) {
  IN_CONTEXT("cuMemFree")
  record("cuMemFree");
  c.queues.finish_all();
  return at ? release(c, at) : SUCCESS;
}
EXPORT int cuMemFreeAsync(uint64_t at, StubStream* stream) {
  ON_STREAM("cuMemFreeAsync")
  record("cuMemFreeAsync stream=%d", number(stream));
  c.queues.push(stream, {[&c, at] { release(c, at); }, nullptr});
  return SUCCESS;
}
EXPORT int cuMemGetInfo_v2(size_t* left, size_t* all) { IN_CONTEXT("cuMemGetInfo") *left = s.total - c.used; *all = s.total; return SUCCESS; }

EXPORT int cuMemAllocHost_v2(void** at, size_t bytes) {
  IN_CONTEXT("cuMemAllocHost")
  *at = std::aligned_alloc(512, (bytes + 511) / 512 * 512);
  if (!*at) return OUT_OF_MEMORY;
  s.pinned[(uint64_t)*at] = bytes;
  record("cuMemAllocHost bytes=%zu", bytes);
  return SUCCESS;
}
EXPORT int cuMemHostAlloc(void** at, size_t bytes, unsigned) { return cuMemAllocHost_v2(at, bytes); }
EXPORT int cuMemFreeHost(void* at) {
  BEGIN("cuMemFreeHost")
  if (!s.pinned.erase((uint64_t)at)) return INVALID_VALUE;
  record("cuMemFreeHost");
  s.finish_all();
  std::free(at);
  return SUCCESS;
}

static bool is_pinned(const void* at, size_t bytes) { return lies_in(state().pinned, (uint64_t)at, bytes); }
static int outside(const char* name) { record("! %s is outside of the device's memory", name); return INVALID_VALUE; }

EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, StubStream* stream) {
  ON_STREAM("cuMemcpyHtoDAsync")
  if (!lies_in(c.memory, to, bytes)) return outside("cuMemcpyHtoDAsync");
  bool pinned = is_pinned(from, bytes);
  record("cuMemcpyHtoDAsync bytes=%zu pinned=%d stream=%d", bytes, pinned, number(stream));
  if (pinned) c.queues.push(stream, {[=] { std::memcpy((void*)to, from, bytes); }, nullptr});
  else {
    // The driver takes a copy before it returns.
    auto copy = std::make_shared<std::vector<char>>((const char*)from, (const char*)from + bytes);
    c.queues.push(stream, {[=] { std::memcpy((void*)to, copy->data(), bytes); }, nullptr});
  }
  return SUCCESS;
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, StubStream* stream) {
  ON_STREAM("cuMemcpyDtoHAsync")
  if (!lies_in(c.memory, from, bytes)) return outside("cuMemcpyDtoHAsync");
  bool pinned = is_pinned(to, bytes);
  record("cuMemcpyDtoHAsync bytes=%zu pinned=%d stream=%d", bytes, pinned, number(stream));
  c.queues.push(stream, {[=] { std::memcpy(to, (const void*)from, bytes); }, nullptr});
  // Into pageable memory the driver returns when it is there.
  if (!pinned) c.queues.finish(stream);
  return SUCCESS;
}
EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, StubStream* stream) {
  ON_STREAM("cuMemcpyDtoDAsync")
  if (!lies_in(c.memory, from, bytes) || !lies_in(c.memory, to, bytes)) return outside("cuMemcpyDtoDAsync");
  record("cuMemcpyDtoDAsync bytes=%zu stream=%d", bytes, number(stream));
  c.queues.push(stream, {[=] { std::memmove((void*)to, (const void*)from, bytes); }, nullptr});
  return SUCCESS;
}
EXPORT int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, StubStream* stream) {
  ON_STREAM("cuMemsetD8Async")
  if (!lies_in(c.memory, to, bytes)) return outside("cuMemsetD8Async");
  record("cuMemsetD8Async bytes=%zu stream=%d", bytes, number(stream));
  c.queues.push(stream, {[=] { std::memset((void*)to, value, bytes); }, nullptr});
  return SUCCESS;
}

// CUDA_MEMCPY2D.
struct Side { size_t x, y; int type; void* host; uint64_t device; void* array; size_t pitch; };
struct Copy2D { Side from, to; size_t width, height; };
static_assert(offsetof(Side, pitch) == 48 && sizeof(Copy2D) == 128, "CUDA_MEMCPY2D");

EXPORT int cuMemcpy2DAsync_v2(const Copy2D* given, StubStream* stream) {
  ON_STREAM("cuMemcpy2DAsync")
  Copy2D copy = *given;
  auto start = [](const Side& side) { return (char*)(side.type == 1 ? side.host : (void*)side.device) + side.y * side.pitch + side.x; };
  char *from = start(copy.from), *to = start(copy.to);
  bool up = copy.from.type == 1;
  size_t rows = copy.height, width = copy.width;
  auto range = [&](const Side& side) { return rows ? (rows - 1) * side.pitch + width : 0; };
  for (const Side* side : {&copy.from, &copy.to})
    if (side->type == 2 && !lies_in(c.memory, (uint64_t)start(*side), range(*side))) return outside("cuMemcpy2DAsync");
  bool pinned = up ? is_pinned(from, range(copy.from)) : copy.to.type == 1 ? is_pinned(to, range(copy.to)) : true;
  record("cuMemcpy2DAsync%s bytes=%zu pinned=%d stream=%d", up ? "HtoD" : "DtoH", rows * width, pinned, number(stream));
  auto work = [=](const char* from, size_t pitch) {
    for (size_t row = 0; row < rows; row++) std::memcpy(to + row * copy.to.pitch, from + row * pitch, width);
  };
  if (up && !pinned) {
    auto kept = std::make_shared<std::vector<char>>(from, from + range(copy.from));
    c.queues.push(stream, {[=] { work(kept->data(), copy.from.pitch); }, nullptr});
    return SUCCESS;
  }
  c.queues.push(stream, {[=] { work(from, copy.from.pitch); }, nullptr});
  if (!up && !pinned) c.queues.finish(stream);
  return SUCCESS;
}

// Streams and events.

EXPORT int cuStreamCreate(StubStream** stream, unsigned) {
  IN_CONTEXT("cuStreamCreate")
  *stream = c.queues.create();
  record("cuStreamCreate stream=%d", number(*stream));
  return SUCCESS;
}
EXPORT int cuStreamDestroy_v2(StubStream* stream) { IN_CONTEXT("cuStreamDestroy") c.queues.finish(stream); return SUCCESS; }
EXPORT int cuStreamSynchronize(StubStream* stream) {
  ON_STREAM("cuStreamSynchronize")
  record("cuStreamSynchronize stream=%d", number(stream));
  c.queues.finish(stream);
  return s.fault;
}
EXPORT int cuStreamWaitEvent(StubStream* stream, StubEvent* event, unsigned) {
  IN_CONTEXT("cuStreamWaitEvent")
  record("cuStreamWaitEvent stream=%d", number(stream));
  if (event->places) c.queues.push(stream, {nullptr, event->places});
  return SUCCESS;
}
EXPORT int cuEventCreate(StubEvent** event, unsigned) { IN_CONTEXT("cuEventCreate") *event = new StubEvent; return SUCCESS; }
EXPORT int cuEventDestroy_v2(StubEvent* event) { BEGIN("cuEventDestroy") delete event; return SUCCESS; }
EXPORT int cuEventRecord(StubEvent* event, StubStream* stream) {
  ON_STREAM("cuEventRecord")
  record("cuEventRecord stream=%d", number(stream));
  event->at = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
  event->places = c.queues.now(c.queues.of(stream));
  return SUCCESS;
}
EXPORT int cuEventSynchronize(StubEvent* event) {
  BEGIN("cuEventSynchronize")
  std::string which;
  if (event->places) for (Place place : *event->places) which += " stream=" + std::to_string(place.stream->number);
  record("cuEventSynchronize%s done=%d", which.c_str(), !event->places || Queues::is_done(*event->places));
  if (event->places) Queues::wait(*event->places);
  return s.fault;
}
// Where work is deferred an event is not ready when it is asked first, and is the next time.
EXPORT int cuEventQuery(StubEvent* event) {
  BEGIN("cuEventQuery")
  record("cuEventQuery");
  if (!event->places || Queues::is_done(*event->places)) return s.fault;
  if (!event->asked) { event->asked = true; return NOT_READY; }
  Queues::wait(*event->places);
  return s.fault;
}
EXPORT int cuEventElapsedTime(float* milliseconds, StubEvent* from, StubEvent* to) {
  BEGIN("cuEventElapsedTime")
  *milliseconds = (float)(to->at - from->at);
  return SUCCESS;
}
EXPORT int cuCtxRecordEvent(Context* context, StubEvent* event) {
  IN_CONTEXT("cuCtxRecordEvent")
  record("cuCtxRecordEvent");
  event->places = (context ? *context : c).queues.now(nullptr);
  return SUCCESS;
}
EXPORT int cuCtxWaitEvent(Context* context, StubEvent* event) {
  IN_CONTEXT("cuCtxWaitEvent")
  record("cuCtxWaitEvent");
  Queues& queues = (context ? *context : c).queues;
  if (event->places) for (StubStream* stream : queues.streams) queues.push(stream, {nullptr, event->places});
  return SUCCESS;
}

// Kernels.

EXPORT int cuModuleLoadData(Module** module, const void* image) {
  IN_CONTEXT("cuModuleLoadData")
  const char* text = static_cast<const char*>(image);
  if (std::strncmp(text, "stub ", 5) != 0) return INVALID_SOURCE;
  std::string path(text + 5, std::strcspn(text + 5, "\n"));
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) { record("! %s", dlerror()); return INVALID_SOURCE; }
  auto bind = (Block * (*)(const Services*)) dlsym(library, "stub_bind");
  if (!bind) return INVALID_SOURCE;
  *module = new Module{library, bind(&Fibers::services()), &c};
  return SUCCESS;
}
EXPORT int cuModuleUnload(Module*) { return SUCCESS; }
EXPORT int cuModuleGetFunction(Function** function, Module* module, const char* name) {
  IN_CONTEXT("cuModuleGetFunction")
  auto entry = (const Entry*)dlsym(module->library, (std::string("stub_entry_") + name).c_str());
  if (!entry) return NOT_FOUND;
  *function = new Function{name, module, entry};
  return SUCCESS;
}
EXPORT int cuFuncSetAttribute(Function* function, int attribute, int value) {
  BEGIN("cuFuncSetAttribute")
  if (attribute == 8) function->shared = value;
  return value <= 227 << 10 ? SUCCESS : INVALID_VALUE;
}

// A launch's parameters, copied as the driver copies them.
struct Parameters {
  std::vector<std::vector<char>> values;
  std::vector<void*> at;
};

EXPORT int cuLaunchKernel(Function* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
    unsigned shared, StubStream* stream, void** given, void** extra) {
  ON_STREAM("cuLaunchKernel")
  if (f->module->context != &c) { record("! cuLaunchKernel %s: a kernel of another device", f->name.c_str()); return INVALID_HANDLE; }
  if (must_fail(("cuLaunchKernel/" + f->name).c_str())) return LAUNCH_FAILED;
  bool fits = gx && gy && gz && gy <= 65535 && gz <= 65535 && bx && by && bz && bz <= 64 && (uint64_t)bx * by * bz <= 1024;
  if (!fits || extra || shared > (unsigned)f->shared) {
    record("! cuLaunchKernel %s grid=%ux%ux%u block=%ux%ux%u shared=%u", f->name.c_str(), gx, gy, gz, bx, by, bz, shared);
    return INVALID_VALUE;
  }
  record("cuLaunchKernel %s grid=%ux%ux%u block=%ux%ux%u stream=%d", f->name.c_str(), gx, gy, gz, bx, by, bz, number(stream));
  auto parameters = std::make_shared<Parameters>();
  for (unsigned i = 0; i < f->entry->count; i++)
    parameters->values.emplace_back((char*)given[i], (char*)given[i] + f->entry->sizes[i]);
  for (auto& value : parameters->values) parameters->at.push_back(value.data());
  c.queues.push(stream, {[=] {
    State& s = state();
    if (s.fault != SUCCESS) return;
    if (!s.fibers.launch(*f->entry, *f->module->block, {gx, gy, gz}, {bx, by, bz}, parameters->at.data())) {
      record("! %s: threads of a block wait for each other forever", f->name.c_str());
      s.fault = LAUNCH_FAILED;
    }
  }, nullptr});
  return SUCCESS;
}

EXPORT int cuTensorMapEncodeTiled() { return NOT_SUPPORTED; }
EXPORT int cuTensorMapEncodeIm2col() { return NOT_SUPPORTED; }

// A line of the record, for whoever runs the libraries in his own process.
EXPORT void stubMark(const char* text) { record("= %s", text); }

// cuDNN's graph API, as far as one convolution in a graph: descriptors by attributes, heuristics, plans, and their execution
// by plain loops over maps of any strides.
#include <array>
#include <map>
#include <string>
#include <vector>

#include "driver.hpp"
#include "numbers.hpp"
#include "record.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

enum { SUCCESS = 0, NOT_INITIALIZED = 1001, BAD_PARAM = 2000, NOT_SUPPORTED = 3000, EXECUTION_FAILED = 5000 };
enum Kind { CONVOLUTION = 1, ENGINE = 2, ENGINECFG = 3, HEURISTICS = 4, PLAN = 5, FORWARD = 10, BACKWARD_FILTER = 11, BACKWARD_DATA = 12,
  GRAPH = 15, VARIANT_PACK = 16, TENSOR = 17 };
enum Name { CONV_COMP_TYPE = 100, CONV_MODE = 101, DILATIONS = 102, STRIDES = 103, POST_PADDINGS = 104, PRE_PADDINGS = 105, SPATIAL_DIMS = 106,
  HEUR_MODE = 200, HEUR_GRAPH = 201, HEUR_RESULTS = 202, CFG_ENGINE = 300, PLAN_HANDLE = 400, PLAN_CONFIG = 401, PLAN_WORKSPACE = 402,
  GRAPH_HANDLE = 800, GRAPH_OPS = 801, TENSOR_TYPE = 901, TENSOR_DIMS = 902, TENSOR_STRIDES = 903, TENSOR_ID = 906,
  PACK_IDS = 1000, PACK_POINTERS = 1001, PACK_WORKSPACE = 1003, ENGINE_INDEX = 1301, ENGINE_NOTES = 1303 };

struct Handle { StubStream* stream = nullptr; };
struct Descriptor {
  int kind;
  bool finalised = false;
  std::map<int, std::vector<char>> attributes;
  // Of an engine, and of what is made of it: its number, and the graph that it computes.
  int engine = -1;
  Descriptor* graph = nullptr;
  // Who it belongs to: the caller, and descriptors that were made of it, which it outlives as cuDNN's do.
  int owners = 1;
  std::vector<Descriptor*> parts;

  void keep(Descriptor* part) { if (part) { part->owners++; parts.push_back(part); } }
  static void release(Descriptor* one) {
    if (--one->owners > 0) return;
    for (Descriptor* part : one->parts) release(part);
    delete one;
  }

  template <typename T> std::vector<T> get(int name) const {
    auto found = attributes.find(name);
    if (found == attributes.end()) return {};
    std::vector<T> values(found->second.size() / sizeof(T));
    std::memcpy(values.data(), found->second.data(), values.size() * sizeof(T));
    return values;
  }
  template <typename T> T one(int name, T otherwise = T()) const { auto all = get<T>(name); return all.empty() ? otherwise : all[0]; }
};

static thread_local std::string last = "";
static int fail(int status, std::string why) { last = std::move(why); record("! cudnn: %s", last.c_str()); return status; }

// The engines, by their numbers. 0 multiplies as tensor cores do; 1 as it is; 2 does not run.
enum { TENSOR_CORE = 0, EXACT = 1, BROKEN = 2 };

EXPORT size_t cudnnGetVersion() { return 91300; }
EXPORT int cudnnCreate(Handle** handle) { if (must_fail("cudnnCreate")) return NOT_INITIALIZED; *handle = new Handle; return SUCCESS; }
EXPORT int cudnnDestroy(Handle* handle) { delete handle; return SUCCESS; }
EXPORT int cudnnSetStream(Handle* handle, StubStream* stream) { handle->stream = stream; return SUCCESS; }
EXPORT void cudnnGetLastErrorString(char* text, size_t length) { std::snprintf(text, length, "%s", last.c_str()); }
EXPORT const char* cudnnGetErrorString(int) { return "an error of the stub of cuDNN"; }

EXPORT int cudnnBackendCreateDescriptor(int kind, Descriptor** made) {
  static const int known[] = {1, 2, 3, 4, 5, 10, 11, 12, 15, 16, 17};
  for (int one : known) if (one == kind) { *made = new Descriptor; (*made)->kind = kind; return SUCCESS; }
  return fail(NOT_SUPPORTED, "descriptor of kind " + std::to_string(kind));
}
EXPORT int cudnnBackendDestroyDescriptor(Descriptor* descriptor) { Descriptor::release(descriptor); return SUCCESS; }

enum { DESCRIPTOR = 15 };
static size_t size_of(int type) {
  switch (type) {
    case 0: case 3: case 6: case 15: case 5: return 8;  // handle, int64, pointer, descriptor, double
    case 1: case 4: case 7: case 8: case 11: case 23: return 4;  // enumerations, float
    default: return 0;
  }
}

EXPORT int cudnnBackendSetAttribute(Descriptor* descriptor, int name, int type, int64_t count, const void* values) {
  if (descriptor->finalised) return fail(BAD_PARAM, "attribute " + std::to_string(name) + " of a descriptor that is final");
  if (!size_of(type)) return fail(NOT_SUPPORTED, "type " + std::to_string(type) + " of attribute " + std::to_string(name));
  const char* from = static_cast<const char*>(values);
  descriptor->attributes[name].assign(from, from + count * size_of(type));
  if (type == DESCRIPTOR) for (Descriptor* part : descriptor->get<Descriptor*>(name)) descriptor->keep(part);
  return SUCCESS;
}

// The tensors of an operation: input, weight, output; then its convolution.
static std::array<Descriptor*, 4> parts(const Descriptor& operation) {
  std::array<int, 4> names;
  if (operation.kind == FORWARD) names = {704, 703, 705, 702};
  else if (operation.kind == BACKWARD_DATA) names = {710, 709, 711, 708};
  else names = {716, 715, 717, 714};
  std::array<Descriptor*, 4> found;
  for (int i = 0; i < 4; i++) found[i] = operation.one<Descriptor*>(names[i]);
  return found;
}

static int check_operation(const Descriptor& operation) {
  auto p = parts(operation);
  for (Descriptor* part : p) if (!part || !part->finalised) return fail(BAD_PARAM, "an operation lacks a descriptor");
  auto x = p[0]->get<int64_t>(TENSOR_DIMS), w = p[1]->get<int64_t>(TENSOR_DIMS), y = p[2]->get<int64_t>(TENSOR_DIMS);
  auto stride = p[3]->get<int64_t>(STRIDES), pre = p[3]->get<int64_t>(PRE_PADDINGS), post = p[3]->get<int64_t>(POST_PADDINGS);
  bool fits = y[0] == x[0] && y[1] == w[0] && x[1] == w[1];
  for (int i = 0; i < 2; i++) fits = fits && y[2 + i] == (x[2 + i] + pre[i] + post[i] - w[2 + i]) / stride[i] + 1;
  return fits ? SUCCESS : fail(BAD_PARAM, "the sizes of a convolution's tensors do not fit");
}

EXPORT int cudnnBackendFinalize(Descriptor* d) {
  if (must_fail("cudnnBackendFinalize")) return fail(NOT_SUPPORTED, "CUDA_STUB_FAIL");
  auto has = [&](std::initializer_list<int> names) { for (int name : names) if (!d->attributes.count(name)) return false; return true; };
  switch (d->kind) {
    case TENSOR: {
      if (!has({TENSOR_TYPE, TENSOR_DIMS, TENSOR_STRIDES, TENSOR_ID})) return fail(BAD_PARAM, "a tensor lacks an attribute");
      int type = d->one<int>(TENSOR_TYPE);
      if (type != 0 && type != 9) return fail(NOT_SUPPORTED, "a tensor's type");
      if (d->get<int64_t>(TENSOR_DIMS).size() != 4 || d->get<int64_t>(TENSOR_STRIDES).size() != 4) return fail(NOT_SUPPORTED, "a tensor's rank");
      break;
    }
    case CONVOLUTION:
      if (!has({CONV_COMP_TYPE, CONV_MODE, SPATIAL_DIMS, DILATIONS, STRIDES, PRE_PADDINGS, POST_PADDINGS})) return fail(BAD_PARAM, "a convolution lacks an attribute");
      if (d->one<int>(CONV_MODE) != 1 || d->one<int64_t>(SPATIAL_DIMS) != 2) return fail(NOT_SUPPORTED, "a convolution's mode or rank");
      for (int64_t dilation : d->get<int64_t>(DILATIONS)) if (dilation != 1) return fail(NOT_SUPPORTED, "dilation");
      break;
    case FORWARD: case BACKWARD_DATA: case BACKWARD_FILTER:
      if (int wrong = check_operation(*d)) return wrong;
      break;
    case GRAPH:
      if (!has({GRAPH_HANDLE, GRAPH_OPS}) || d->get<Descriptor*>(GRAPH_OPS).size() != 1) return fail(NOT_SUPPORTED, "a graph of other than one operation");
      break;
    case HEURISTICS: if (!has({HEUR_MODE, HEUR_GRAPH})) return fail(BAD_PARAM, "heuristics lack an attribute"); break;
    case PLAN: {
      Descriptor* config = d->one<Descriptor*>(PLAN_CONFIG);
      if (!has({PLAN_HANDLE, PLAN_CONFIG}) || config->engine < 0) return fail(BAD_PARAM, "a plan lacks its engine");
      d->engine = config->engine;
      d->graph = config->graph;
      break;
    }
    case VARIANT_PACK: if (!has({PACK_IDS, PACK_POINTERS, PACK_WORKSPACE})) return fail(BAD_PARAM, "a pack lacks an attribute"); break;
    default: return fail(NOT_SUPPORTED, "what cannot be final");
  }
  d->finalised = true;
  return SUCCESS;
}

template <typename T> static int give(std::vector<T> values, int64_t room, int64_t* count, void* to) {
  *count = (int64_t)values.size();
  std::memcpy(to, values.data(), sizeof(T) * std::min<int64_t>(room, values.size()));
  return SUCCESS;
}

EXPORT int cudnnBackendGetAttribute(Descriptor* d, int name, int, int64_t room, int64_t* count, void* to) {
  if (d->kind == HEURISTICS && name == HEUR_RESULTS) {
    // Mode A (3) suggests them all, the fastest first; the fallback (2) the exact one.
    std::vector<int> engines = d->one<int>(HEUR_MODE) == 3 ? std::vector<int>{BROKEN, TENSOR_CORE, EXACT} : std::vector<int>{EXACT};
    auto places = static_cast<Descriptor**>(to);
    *count = std::min<int64_t>(room, engines.size());
    for (int64_t i = 0; i < *count; i++) {
      places[i]->engine = engines[i];
      places[i]->graph = d->one<Descriptor*>(HEUR_GRAPH);
      places[i]->keep(places[i]->graph);
      places[i]->finalised = true;
    }
    return SUCCESS;
  }
  if (d->kind == ENGINECFG && name == CFG_ENGINE) {
    Descriptor* place = *static_cast<Descriptor**>(to);
    place->engine = d->engine; place->graph = d->graph; place->keep(d->graph); place->finalised = true;
    *count = 1;
    return SUCCESS;
  }
  if (d->kind == ENGINE && name == ENGINE_INDEX) return give<int64_t>({d->engine}, room, count, to);
  if (d->kind == ENGINE && name == ENGINE_NOTES) return give<int>(d->engine == TENSOR_CORE ? std::vector<int>{0} : std::vector<int>{}, room, count, to);
  if (d->kind == PLAN && name == PLAN_WORKSPACE) return give<int64_t>({d->engine == TENSOR_CORE ? 4096 : 0}, room, count, to);
  return fail(NOT_SUPPORTED, "attribute " + std::to_string(name));
}

struct Map {
  Number type;
  void* at;
  std::vector<int64_t> dims, strides;
  int64_t index(int64_t a, int64_t b, int64_t c, int64_t d) const { return a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3]; }
  // As [a, c, d, b] without gaps.
  std::vector<float> last(bool round) const {
    std::vector<float> values;
    values.reserve(dims[0] * dims[1] * dims[2] * dims[3]);
    for (int64_t a = 0; a < dims[0]; a++) for (int64_t c = 0; c < dims[2]; c++) for (int64_t d = 0; d < dims[3]; d++) for (int64_t b = 0; b < dims[1]; b++) {
      float value = get(type, at, index(a, b, c, d));
      values.push_back(round ? tf32(value) : value);
    }
    return values;
  }
  void set(const std::vector<float>& values) const {
    size_t i = 0;
    for (int64_t a = 0; a < dims[0]; a++) for (int64_t c = 0; c < dims[2]; c++) for (int64_t d = 0; d < dims[3]; d++) for (int64_t b = 0; b < dims[1]; b++)
      put(type, at, index(a, b, c, d), values[i++]);
  }
};

struct Job { int kind; Map x, w, y; std::array<int64_t, 2> stride, padding; bool round; };

// Calls `work(x, w, y)` with the places of an input's pixel, a tap and an output's pixel that meet: numbers of pixels.
template <typename F> static void each(const Job& j, F work) {
  const auto &x = j.x.dims, &w = j.w.dims, &y = j.y.dims;
  for (int64_t n = 0; n < y[0]; n++) for (int64_t p = 0; p < y[2]; p++) for (int64_t q = 0; q < y[3]; q++)
    for (int64_t a = 0; a < w[2]; a++) for (int64_t b = 0; b < w[3]; b++) {
      int64_t row = p * j.stride[0] + a - j.padding[0], column = q * j.stride[1] + b - j.padding[1];
      if (row < 0 || column < 0 || row >= x[2] || column >= x[3]) continue;
      work((n * x[2] + row) * x[3] + column, a * w[3] + b, (n * y[2] + p) * y[3] + q);
    }
}

static void compute(const Job& j) {
  int64_t C = j.x.dims[1], K = j.w.dims[0], taps = j.w.dims[2] * j.w.dims[3];
  auto pixels = [](const Map& map) { return map.dims[0] * map.dims[2] * map.dims[3]; };
  if (j.kind == FORWARD) {
    std::vector<float> x = j.x.last(j.round), given = j.w.last(j.round), w(taps * C * K), y(pixels(j.y) * K);
    for (int64_t k = 0; k < K; k++) for (int64_t t = 0; t < taps * C; t++) w[t * K + k] = given[k * taps * C + t];
    each(j, [&](int64_t from, int64_t tap, int64_t to) {
      float* __restrict sum = &y[to * K];
      for (int64_t c = 0; c < C; c++) {
        float value = x[from * C + c];
        const float* __restrict row = &w[(tap * C + c) * K];
        for (int64_t k = 0; k < K; k++) sum[k] += value * row[k];
      }
    });
    j.y.set(y);
  } else if (j.kind == BACKWARD_DATA) {
    std::vector<float> dy = j.y.last(j.round), w = j.w.last(j.round), dx(pixels(j.x) * C);
    each(j, [&](int64_t to, int64_t tap, int64_t from) {
      float* __restrict sum = &dx[to * C];
      for (int64_t k = 0; k < K; k++) {
        float value = dy[from * K + k];
        const float* __restrict row = &w[(k * taps + tap) * C];
        for (int64_t c = 0; c < C; c++) sum[c] += value * row[c];
      }
    });
    j.x.set(dx);
  } else {
    std::vector<float> dy = j.y.last(j.round), x = j.x.last(j.round), dw(K * taps * C);
    each(j, [&](int64_t from, int64_t tap, int64_t at) {
      const float* __restrict row = &x[from * C];
      for (int64_t k = 0; k < K; k++) {
        float value = dy[at * K + k];
        float* __restrict sum = &dw[(k * taps + tap) * C];
        for (int64_t c = 0; c < C; c++) sum[c] += value * row[c];
      }
    });
    j.w.set(dw);
  }
}

EXPORT int cudnnBackendExecute(Handle* handle, Descriptor* plan, Descriptor* pack) {
  if (must_fail("cudnnBackendExecute")) return fail(EXECUTION_FAILED, "CUDA_STUB_FAIL");
  if (!plan->finalised || !pack->finalised) return fail(BAD_PARAM, "a plan or pack that is not final");
  if (plan->engine == BROKEN) return fail(EXECUTION_FAILED, "this engine does not run");
  const Descriptor& operation = *plan->graph->one<Descriptor*>(GRAPH_OPS);
  auto p = parts(operation);
  auto ids = pack->get<int64_t>(PACK_IDS);
  auto pointers = pack->get<void*>(PACK_POINTERS);
  auto map = [&](const Descriptor& tensor) {
    Map map = {tensor.one<int>(TENSOR_TYPE) == 0 ? Number::F32 : Number::Bf16, nullptr, tensor.get<int64_t>(TENSOR_DIMS), tensor.get<int64_t>(TENSOR_STRIDES)};
    for (size_t i = 0; i < ids.size() && i < pointers.size(); i++) if (ids[i] == tensor.one<int64_t>(TENSOR_ID)) map.at = pointers[i];
    return map;
  };
  auto stride = p[3]->get<int64_t>(STRIDES), padding = p[3]->get<int64_t>(PRE_PADDINGS);
  Job job = {operation.kind, map(*p[0]), map(*p[1]), map(*p[2]), {stride[0], stride[1]}, {padding[0], padding[1]}, plan->engine == TENSOR_CORE};
  if (!job.x.at || !job.w.at || !job.y.at) return fail(BAD_PARAM, "a tensor has no pointer");
  if (plan->engine == TENSOR_CORE && !pack->one<void*>(PACK_WORKSPACE)) return fail(BAD_PARAM, "no workspace");
  stub_enqueue(handle->stream, operation.kind == FORWARD ? "cudnn forward" : operation.kind == BACKWARD_DATA ? "cudnn input" : "cudnn weight", [job] { compute(job); });
  return SUCCESS;
}

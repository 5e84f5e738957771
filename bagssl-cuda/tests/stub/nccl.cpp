// NCCL: sums over the GPUs of one process, each of which has a thread. A call returns when all of them have made theirs, which
// NCCL is free to do; the sum itself is queued. What nobody here calls (broadcasts, gathers, sending) is missing.
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>

#include "driver.hpp"
#include "numbers.hpp"
#include "record.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

enum { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };
enum { FLOAT32 = 7, BFLOAT16 = 9, SUM = 0, AVERAGE = 4 };

struct Id { char bytes[128]; };

// What a worker brings to a sum.
struct Part { const void* from; void* to; size_t count; int type, operation; StubStream* stream; };

static bool fit(const Part& a, const Part& b) { return a.count == b.count && a.type == b.type && a.operation == b.operation; }

static void sum(const std::vector<Part>& parts) {
  const Part& first = parts[0];
  Number type = first.type == FLOAT32 ? Number::F32 : Number::Bf16;
  float share = first.operation == AVERAGE ? 1.f / (float)parts.size() : 1.f;
  for (size_t i = 0; i < first.count; i++) {
    float value = 0.f;
    for (const Part& part : parts) value += get(type, part.from, (int64_t)i);
    for (const Part& part : parts) put(type, part.to, (int64_t)i, share * value);
  }
}

// The workers that share an id.
class Group {
  std::mutex mutex;
  std::condition_variable all;
  std::vector<Part> parts;
  size_t arrived = 0, round = 0;
  int result = SUCCESS;

 public:
  explicit Group(size_t count) : parts(count) {}
  size_t count() const { return parts.size(); }

  // Waits for the others. The last to come does `work` with what all have brought.
  int meet(int rank, const Part& part, const std::function<int(const std::vector<Part>&)>& work) {
    std::unique_lock<std::mutex> lock(mutex);
    size_t own = round;
    parts[rank] = part;
    if (++arrived == parts.size()) {
      result = work(parts);
      arrived = 0;
      round++;
      all.notify_all();
    } else if (!all.wait_for(lock, std::chrono::seconds(60), [&] { return round != own; })) {
      record("! NCCL: rank %d waits for the others in vain", rank);
      return SYSTEM_ERROR;
    }
    return result;
  }
};

struct Comm { std::shared_ptr<Group> group; int rank; };

static std::shared_ptr<Group> group_of(const Id& id, size_t count) {
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<Group>> groups;
  std::lock_guard<std::mutex> lock(mutex);
  auto& group = groups[id.bytes];
  if (!group) group = std::make_shared<Group>(count);
  return group;
}

EXPORT int ncclGetVersion(int* version) { *version = 22800; return SUCCESS; }

EXPORT int ncclGetUniqueId(Id* id) {
  static int created = 0;
  std::snprintf(id->bytes, sizeof id->bytes, "stub %d", __atomic_add_fetch(&created, 1, __ATOMIC_SEQ_CST));
  return SUCCESS;
}

EXPORT int ncclCommInitRank(Comm** comm, int count, Id id, int rank) {
  record("ncclCommInitRank rank=%d of=%d", rank, count);
  if (must_fail("ncclCommInitRank")) return SYSTEM_ERROR;
  if (count < 1 || rank < 0 || rank >= count) return INVALID_ARGUMENT;
  auto group = group_of(id, (size_t)count);
  if (group->count() != (size_t)count) return INVALID_ARGUMENT;
  *comm = new Comm{group, rank};
  return group->meet(rank, {}, [](const std::vector<Part>&) { return SUCCESS; });
}

EXPORT int ncclAllReduce(const void* from, void* to, size_t count, int type, int operation, Comm* comm, StubStream* stream) {
  record("ncclAllReduce rank=%d count=%zu", comm->rank, count);
  if (must_fail("ncclAllReduce")) return SYSTEM_ERROR;
  if ((type != FLOAT32 && type != BFLOAT16) || (operation != SUM && operation != AVERAGE) || !stream) return INVALID_ARGUMENT;
  return comm->group->meet(comm->rank, {from, to, count, type, operation, stream}, [](const std::vector<Part>& parts) -> int {
    std::vector<StubStream*> streams;
    for (const Part& part : parts) {
      if (!fit(part, parts[0])) { record("! ncclAllReduce: workers ask for different sums"); return INVALID_USAGE; }
      streams.push_back(part.stream);
    }
    stub_enqueue_together(streams, [parts] { sum(parts); });
    return SUCCESS;
  });
}

// The streams of a device, and events. Work runs at once, or, with CUDA_STUB_MODE=deferred, not before somebody waits for it: a stream that is
// not made to wait for another's work then finds that it has not been done.
#pragma once
#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "driver.hpp"
#include "record.hpp"

struct StubStream;
// A place in a stream: all work up to this number.
struct Place { StubStream* stream; uint64_t upto; };
using Places = std::vector<Place>;

struct Work { std::function<void()> run; std::shared_ptr<Places> after; };

struct StubStream {
  int number = 0;
  uint64_t queued = 0, done = 0;
  std::deque<Work> work;
};

// With the milliseconds when it was recorded.
struct StubEvent { std::shared_ptr<Places> places; bool asked = false; double at = 0; };

class Queues {
 public:
  // Never freed: places name them.
  std::vector<StubStream*> streams;
  bool deferred = [] { const char* mode = std::getenv("CUDA_STUB_MODE"); return mode && std::string(mode) == "deferred"; }();

  Queues() { create(); }

  StubStream* create() {
    static int created = 0;
    streams.push_back(new StubStream);
    streams.back()->number = created++;
    return streams.back();
  }
  StubStream* of(StubStream* stream) { return stream ? stream : streams[0]; }
  bool has(StubStream* stream) { return !stream || std::find(streams.begin(), streams.end(), stream) != streams.end(); }

  void push(StubStream* stream, Work work) {
    stream = of(stream);
    stream->work.push_back(std::move(work));
    stream->queued++;
    if (!deferred) advance(stream, stream->queued);
  }
  static void advance(StubStream* stream, uint64_t upto) {
    while (stream->done < upto) {
      Work work = std::move(stream->work.front());
      stream->work.pop_front();
      // Counted first: what it waits for may lead back here.
      stream->done++;
      if (work.after) for (Place place : *work.after) advance(place.stream, place.upto);
      if (work.run) work.run();
    }
  }
  void finish(StubStream* stream) { stream = of(stream); advance(stream, stream->queued); }
  void finish_all() { for (size_t i = 0; i < streams.size(); i++) finish(streams[i]); }
  std::shared_ptr<Places> now(StubStream* only) {
    auto places = std::make_shared<Places>();
    if (only) places->push_back({only, only->queued});
    else for (StubStream* stream : streams) places->push_back({stream, stream->queued});
    return places;
  }
  static bool is_done(const Places& places) {
    for (Place place : places) if (place.stream->done < place.upto) return false;
    return true;
  }
  static void wait(const Places& places) { for (Place place : places) advance(place.stream, place.upto); }
};

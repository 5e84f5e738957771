// What the driver's library exports to the other libraries of the stub, beside CUDA's own functions.
#pragma once
#include <functional>
#include <vector>

struct StubStream;

// Enqueues work. Streams may be null: the default stream.
__attribute__((visibility("default"))) void stub_enqueue(StubStream* stream, const char* what, std::function<void()> work);
// Enqueues work that streams of several devices have in common: behind all that each was given, before all that follows.
__attribute__((visibility("default"))) void stub_enqueue_together(const std::vector<StubStream*>& streams, std::function<void()> work);

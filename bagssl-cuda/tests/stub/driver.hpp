// What the driver's library exports to the other libraries of the stub, beside CUDA's own functions.
#pragma once
#include <functional>

struct StubStream;

// Enqueues work. Streams may be null: the default stream.
__attribute__((visibility("default"))) void stub_enqueue(StubStream* stream, const char* what, std::function<void()> work);

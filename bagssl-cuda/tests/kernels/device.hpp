// A GPU for tests: the kernels' sources as C++, a thread of the CPU for each thread of a block, one block after the other.
#include <barrier>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) alignas(n)
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __CUDA_ARCH__ 0

struct Index { unsigned x = 0, y = 0, z = 0; };
static thread_local Index threadIdx, blockIdx;
static Index blockDim, gridDim;
static std::unique_ptr<std::barrier<>> block_barrier;
static std::vector<std::unique_ptr<std::barrier<>>> warp_barriers;
static float lanes[1024];

static void __syncthreads() { block_barrier->arrive_and_wait(); }

static float __shfl_down_sync(unsigned, float value, int offset) {
  unsigned own = threadIdx.x, last = own / 32 * 32 + 31;
  std::barrier<>& warp = *warp_barriers[own / 32];
  lanes[own] = value;
  warp.arrive_and_wait();
  float other = own + offset <= last ? lanes[own + offset] : value;
  warp.arrive_and_wait();
  return other;
}

static float __uint_as_float(unsigned bits) { float value; std::memcpy(&value, &bits, 4); return value; }
static unsigned __float_as_uint(float value) { unsigned bits; std::memcpy(&bits, &value, 4); return bits; }

template <typename... Parameters, typename... Arguments>
static void launch(void (*kernel)(Parameters...), unsigned grid_x, unsigned grid_y, unsigned block, Arguments... arguments) {
  gridDim = {grid_x, grid_y, 1};
  blockDim = {block, 1, 1};
  block_barrier = std::make_unique<std::barrier<>>(block);
  warp_barriers.clear();
  for (unsigned first = 0; first < block; first += 32)
    warp_barriers.push_back(std::make_unique<std::barrier<>>(std::min(32u, block - first)));
  std::vector<std::thread> threads;
  for (unsigned index = 0; index < block; index++)
    threads.emplace_back([=] {
      threadIdx.x = index;
      for (unsigned y = 0; y < grid_y; y++)
        for (unsigned x = 0; x < grid_x; x++) {
          blockIdx = {x, y, 0};
          kernel((Parameters)arguments...);
          // The memory that a block shares is the next one's too.
          block_barrier->arrive_and_wait();
        }
    });
  for (auto& thread : threads) thread.join();
}

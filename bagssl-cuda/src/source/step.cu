// An optimizer's step over many parameters in one launch: blockIdx.y is the parameter, whose pointers come by value.
// A state that is not there yet is null and counts as 0.
#define ITEMS 40
struct Item { const float *p, *g, *first, *second; float *p2, *first2, *second2; i64 count; float decay; int adapt; };
struct Items { Item at[ITEMS]; };

#define EACH(ITEM) for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < ITEM.count; i += (i64)gridDim.x * blockDim.x)

struct Descent { float rate, momentum; int nesterov; };

__device__ __forceinline__ void descend(const Item& item, i64 i, float g, Descent d) {
  if (d.momentum == 0.f) { item.p2[i] = item.p[i] - g * d.rate; return; }
  float velocity = (item.first ? item.first[i] * d.momentum : 0.f) + g;
  item.first2[i] = velocity;
  item.p2[i] = item.p[i] - (d.nesterov ? g + velocity * d.momentum : velocity) * d.rate;
}

extern "C" __global__ void step_sgd(Items items, Descent d) {
  const Item& item = items.at[blockIdx.y];
  EACH(item) descend(item, i, item.g[i] + item.p[i] * item.decay, d);
}

// Here an item's `decay` is what is kept of the parameter, 1 - rate * decay.
struct AdamW { float first, second, one_less_first, one_less_second, over_second, epsilon, rate_over_first; };

extern "C" __global__ void step_adamw(Items items, AdamW a) {
  const Item& item = items.at[blockIdx.y];
  EACH(item) {
    float g = item.g[i], p = item.p[i] * item.decay;
    float first = (item.first ? item.first[i] * a.first : 0.f) + g * a.one_less_first;
    float second = (item.second ? item.second[i] * a.second : 0.f) + g * g * a.one_less_second;
    item.first2[i] = first; item.second2[i] = second;
    item.p2[i] = p - first / (sqrtf(second * a.over_second) + a.epsilon) * a.rate_over_first;
  }
}

// The sum of a value over the block, for its first thread.
__device__ __forceinline__ float block_sum(float v) {
  __shared__ float parts[32];
  for (int offset = 16; offset; offset /= 2) v += __shfl_down_sync(0xffffffffu, v, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x < 32) {
    v = threadIdx.x < blockDim.x / 32 ? parts[threadIdx.x] : 0.f;
    for (int offset = 16; offset; offset /= 2) v += __shfl_down_sync(0xffffffffu, v, offset);
  }
  return v;
}

// parts: [item, block, 2]: squared norms of the parameter and of its gradient (with decay, where `plain`).
extern "C" __global__ void step_norms(Items items, float* parts, int plain) {
  const Item& item = items.at[blockIdx.y];
  float a = 0.f, b = 0.f;
  if (item.adapt)
    EACH(item) {
      float p = item.p[i], g = item.g[i] + (plain ? p * item.decay : 0.f);
      a += p * p; b += g * g;
    }
  a = block_sum(a); b = block_sum(b);
  if (threadIdx.x == 0) {
    float* part = parts + ((i64)blockIdx.y * gridDim.x + blockIdx.x) * 2;
    part[0] = a; part[1] = b;
  }
}

// LARS. Where a norm is 0 the gradient stays as it is, with decay where `plain`.
struct Lars { float eta, rate; int plain; };

extern "C" __global__ void step_lars(Items items, Descent d, Lars l, const float* parts, int blocks) {
  const Item& item = items.at[blockIdx.y];
  __shared__ float ratio_of_all; __shared__ int is_zero;
  if (item.adapt) {
    float a = 0.f, b = 0.f;
    for (int block = threadIdx.x; block < blocks; block += blockDim.x) {
      const float* part = parts + ((i64)blockIdx.y * blocks + block) * 2;
      a += part[0]; b += part[1];
    }
    a = block_sum(a); b = block_sum(b);
    if (threadIdx.x == 0) {
      float p = sqrtf(a), g = sqrtf(b), ratio;
      if (l.plain) ratio = p * l.eta / g;
      else ratio = l.rate > 0.f ? fminf(p / (g + p * item.decay + 1e-8f) * (l.eta / l.rate), 1.f) : 1.f;
      is_zero = p == 0.f || g == 0.f;
      ratio_of_all = is_zero ? 1.f : ratio;
    }
    __syncthreads();
  }
  EACH(item) {
    float g = item.g[i];
    if (item.adapt) {
      bool keep = is_zero && !l.plain;
      g = keep ? g : (g + item.p[i] * item.decay) * ratio_of_all;
    }
    descend(item, i, g, d);
  }
}

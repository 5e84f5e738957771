// Rows [rows, channels]: what comes after a convolution or a product, and sums.

// y = relu?(x + bias? + residual?), in the tiles of the batch norm.
template <typename T, int V>
__device__ __forceinline__ void finish(const T* x, const float* bias, const T* residual, T* y, i64 rows, int channels,
    int width, int relu) {
  int groups = channels / V;
  Tile t = tile(groups, width);
  if (!t.inside) return;
  float offset[V];
  #pragma unroll
  for (int j = 0; j < V; j++) offset[j] = bias ? bias[t.group * V + j] : 0.f;
  i64 step = (i64)gridDim.x * t.lines;
  for (i64 row = (i64)blockIdx.x * t.lines + t.line; row < rows; row += step) {
    Group<T, V> v = load<T, V>(x, row * groups + t.group), r;
    if (residual) r = load<T, V>(residual, row * groups + t.group);
    float out[V];
    #pragma unroll
    for (int j = 0; j < V; j++) {
      float f = v.get(j) + offset[j];
      if (residual) f += r.get(j);
      out[j] = relu && f <= 0.f ? 0.f : f;
    }
    store<T, V>(y, out, row * groups + t.group);
  }
}

// y may be x.
#define FINISH(NAME, T, V) \
  extern "C" __global__ void finish_##NAME(const T* x, const float* __restrict__ bias, \
      const T* __restrict__ residual, T* y, i64 rows, \
      int channels, int width, int relu) { finish<T, V>(x, bias, residual, y, rows, channels, width, relu); }
FINISH(bf16_8, bf16, 8)
FINISH(bf16_1, bf16, 1)
FINISH(f32_4, float, 4)
FINISH(f32_1, float, 1)

// The sum of each column: 32 columns a block, 32 lines of threads.
extern "C" __global__ void sum_columns(const float* __restrict__ x, float* __restrict__ sums, i64 rows, int channels) {
  __shared__ float parts[32][33];
  int lane = threadIdx.x % 32, line = threadIdx.x / 32, channel = blockIdx.x * 32 + lane;
  float sum = 0.f;
  if (channel < channels) for (i64 row = line; row < rows; row += 32) sum += x[row * channels + channel];
  parts[line][lane] = sum;
  __syncthreads();
  if (line != 0 || channel >= channels) return;
  for (int other = 1; other < 32; other++) sum += parts[other][lane];
  sums[channel] = sum;
}

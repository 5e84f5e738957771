// Batch norm over the rows of [rows, channels], with ReLU and residual. A thread owns V channels of some rows; a block
// has `width` groups of channels times some rows, and blockIdx.y says which groups.
struct Tile { int width; int group; int lane; int line; int lines; bool inside; };

__device__ __forceinline__ Tile tile(int groups, int width) {
  Tile t;
  t.width = width; t.lane = threadIdx.x % width; t.line = threadIdx.x / width; t.lines = blockDim.x / width;
  t.group = blockIdx.y * width + t.lane; t.inside = t.group < groups;
  return t;
}

// Two samples, each of a count, a mean and a sum of squared deviations, as one (Chan, Golub, LeVeque 1979).
template <typename F>
__device__ __forceinline__ void merge(F& n, F& mean, F& m2, F n2, F mean2, F m22) {
  if (n2 == (F)0) return;
  F total = n + n2, d = mean2 - mean, share = n2 / total;
  mean += d * share;
  m2 += m22 + d * d * n * share;
  n = total;
}

// parts: [blocks, 3, channels]: mean, sum of squared deviations, count. Each thread's sums are taken around the first
// value that it sees, so that a mean which is large beside the deviation does not cancel.
template <typename T, int V>
__device__ __forceinline__ void norm_statistics(const T* x, float* parts, i64 rows, int channels, int width) {
  int groups = channels / V;
  Tile t = tile(groups, width);
  float around[V], sum[V], square[V];
  i64 step = (i64)gridDim.x * t.lines, row = (i64)blockIdx.x * t.lines + t.line;
  float count = 0.f;
  #pragma unroll
  for (int j = 0; j < V; j++) { around[j] = 0.f; sum[j] = 0.f; square[j] = 0.f; }
  if (t.inside && row < rows) {
    Group<T, V> first = load<T, V>(x, row * groups + t.group);
    #pragma unroll
    for (int j = 0; j < V; j++) around[j] = first.get(j);
    for (; row + 3 * step < rows; row += 4 * step) {
      Group<T, V> v[4];
      #pragma unroll
      for (int u = 0; u < 4; u++) v[u] = load<T, V>(x, (row + u * step) * groups + t.group);
      #pragma unroll
      for (int u = 0; u < 4; u++)
        #pragma unroll
        for (int j = 0; j < V; j++) { float d = v[u].get(j) - around[j]; sum[j] += d; square[j] += d * d; }
      count += 4.f;
    }
    for (; row < rows; row += step) {
      Group<T, V> v = load<T, V>(x, row * groups + t.group);
      #pragma unroll
      for (int j = 0; j < V; j++) { float d = v.get(j) - around[j]; sum[j] += d; square[j] += d * d; }
      count += 1.f;
    }
  }
  __shared__ float means[256 * V], deviations[256 * V], counts[256];
  int own = (t.line * width + t.lane);
  counts[own] = count;
  #pragma unroll
  for (int j = 0; j < V; j++) {
    float shift = count > 0.f ? sum[j] / count : 0.f;
    means[own * V + j] = around[j] + shift;
    deviations[own * V + j] = fmaxf(square[j] - sum[j] * shift, 0.f);
  }
  __syncthreads();
  for (int e = threadIdx.x; e < width * V; e += blockDim.x) {
    int lane = e / V, j = e % V, group = blockIdx.y * width + lane;
    if (group >= groups) continue;
    float n = 0.f, mean = 0.f, m2 = 0.f;
    for (int line = 0; line < t.lines; line++) {
      int at = line * width + lane;
      merge(n, mean, m2, counts[at], means[at * V + j], deviations[at * V + j]);
    }
    float* part = parts + (i64)blockIdx.x * 3 * channels + group * V + j;
    part[0] = mean; part[channels] = m2; part[2 * channels] = n;
  }
}

// A thread for each channel and each of 32 lines of parts.
extern "C" __global__ void __launch_bounds__(1024) norm_merge(const float* __restrict__ parts, int blocks,
    int channels, float* __restrict__ mean, float* __restrict__ variance) {
  __shared__ double ns[32][33], means[32][33], m2s[32][33];
  int lane = threadIdx.x % 32, line = threadIdx.x / 32, channel = blockIdx.x * 32 + lane;
  double n = 0.0, m = 0.0, m2 = 0.0;
  if (channel < channels)
    for (int block = line; block < blocks; block += 32) {
      const float* part = parts + (i64)block * 3 * channels + channel;
      merge<double>(n, m, m2, part[2 * channels], part[0], part[channels]);
    }
  ns[line][lane] = n; means[line][lane] = m; m2s[line][lane] = m2;
  __syncthreads();
  if (line != 0 || channel >= channels) return;
  for (int other = 1; other < 32; other++) merge<double>(n, m, m2, ns[other][lane], means[other][lane], m2s[other][lane]);
  mean[channel] = (float)m;
  variance[channel] = (float)(m2 / n);
}

// y = relu?((x - mean) * scale / sqrt(variance + epsilon) + shift + residual?)
template <typename T, int V>
__device__ __forceinline__ void norm_apply(const T* x, const T* residual, T* y, const float* mean, const float* variance,
    const float* scale, const float* shift, float epsilon, i64 rows, int channels, int width, int relu) {
  int groups = channels / V;
  Tile t = tile(groups, width);
  if (!t.inside) return;
  float m[V], factor[V], offset[V];
  #pragma unroll
  for (int j = 0; j < V; j++) {
    int c = t.group * V + j;
    m[j] = mean[c]; factor[j] = scale[c] / sqrtf(variance[c] + epsilon); offset[j] = shift[c];
  }
  i64 step = (i64)gridDim.x * t.lines;
  for (i64 first = (i64)blockIdx.x * t.lines + t.line; first < rows; first += 2 * step) {
    Group<T, V> v[2], r[2];
    #pragma unroll
    for (int u = 0; u < 2; u++) {
      i64 row = first + u * step;
      if (row < rows) {
        v[u] = load<T, V>(x, row * groups + t.group);
        if (residual) r[u] = load<T, V>(residual, row * groups + t.group);
      }
    }
    #pragma unroll
    for (int u = 0; u < 2; u++) {
      i64 row = first + u * step;
      if (row < rows) {
        float out[V];
        #pragma unroll
        for (int j = 0; j < V; j++) {
          float f = (v[u].get(j) - m[j]) * factor[j] + offset[j];
          if (residual) f += r[u].get(j);
          out[j] = relu && f <= 0.f ? 0.f : f;
        }
        store<T, V>(y, out, row * groups + t.group);
      }
    }
  }
}

// How the gradient behind the ReLU is known: there is none; by the output, made again from x; by the output itself.
enum Mask { NO_MASK, FROM_X, FROM_Y };

template <typename T, int V, Mask MASK>
__device__ __forceinline__ float masked(float g, float f, float factor, float offset, float m, const Group<T, V>& y, int j) {
  if (MASK == NO_MASK) return g;
  float output = MASK == FROM_X ? (f - m) * factor + offset : y.get(j);
  return output <= 0.f ? 0.f : g;
}

// What the thread's rows add to the sums of a gradient. Each mask has code of its own, since none needs all registers.
template <Mask MASK, typename T, int V>
__device__ __forceinline__ void add_rows(const T* dy, const T* x, const T* y, const float* mean, const float* variance,
    const float* scale, const float* shift, float epsilon, i64 rows, int groups, Tile t, float (&sum)[V], float (&product)[V]) {
  float m[V], factor[V], offset[V];
  #pragma unroll
  for (int j = 0; j < V; j++) {
    int c = t.group * V + j;
    m[j] = mean[c]; factor[j] = scale[c] / sqrtf(variance[c] + epsilon); offset[j] = shift[c];
  }
  i64 step = (i64)gridDim.x * t.lines;
  for (i64 first = (i64)blockIdx.x * t.lines + t.line; first < rows; first += 2 * step) {
    Group<T, V> g[2], v[2], o[2];
    #pragma unroll
    for (int u = 0; u < 2; u++) {
      i64 row = first + u * step;
      if (row < rows) {
        g[u] = load<T, V>(dy, row * groups + t.group);
        v[u] = load<T, V>(x, row * groups + t.group);
        if (MASK == FROM_Y) o[u] = load<T, V>(y, row * groups + t.group);
      }
    }
    #pragma unroll
    for (int u = 0; u < 2; u++) {
      if (first + u * step < rows) {
        #pragma unroll
        for (int j = 0; j < V; j++) {
          float f = v[u].get(j), d = masked<T, V, MASK>(g[u].get(j), f, factor[j], offset[j], m[j], o[u], j);
          sum[j] += d; product[j] += d * (f - m[j]);
        }
      }
    }
  }
}

// parts: [blocks, 2, channels]: the sums of the gradient, and of the gradient times the normed input.
template <typename T, int V>
__device__ __forceinline__ void norm_sums(const T* dy, const T* x, const T* y, const float* mean, const float* variance,
    const float* scale, const float* shift, float epsilon, float* parts, i64 rows, int channels, int width, int mask) {
  int groups = channels / V;
  Tile t = tile(groups, width);
  float sum[V] = {}, product[V] = {};
  #define ADD(MASK) add_rows<MASK, T, V>(dy, x, y, mean, variance, scale, shift, epsilon, rows, groups, t, sum, product)
  if (t.inside) {
    if (mask == FROM_X) ADD(FROM_X);
    else if (mask == FROM_Y) ADD(FROM_Y);
    else ADD(NO_MASK);
  }
  #undef ADD
  __shared__ float sums[256 * V], products[256 * V];
  int own = t.line * width + t.lane;
  #pragma unroll
  for (int j = 0; j < V; j++) { sums[own * V + j] = sum[j]; products[own * V + j] = product[j]; }
  __syncthreads();
  for (int e = threadIdx.x; e < width * V; e += blockDim.x) {
    int lane = e / V, j = e % V, group = blockIdx.y * width + lane;
    if (group >= groups) continue;
    float a = 0.f, b = 0.f;
    for (int line = 0; line < t.lines; line++) {
      int at = (line * width + lane) * V + j;
      a += sums[at]; b += products[at];
    }
    float* part = parts + (i64)blockIdx.x * 2 * channels + group * V + j;
    part[0] = a; part[channels] = b / sqrtf(variance[group * V + j] + epsilon);
  }
}

// The sums over all blocks: the gradients of shift and scale.
extern "C" __global__ void __launch_bounds__(1024) norm_sums_merge(const float* __restrict__ parts, int blocks,
    int channels, float* __restrict__ dshift, float* __restrict__ dscale) {
  __shared__ double as[32][33], bs[32][33];
  int lane = threadIdx.x % 32, line = threadIdx.x / 32, channel = blockIdx.x * 32 + lane;
  double a = 0.0, b = 0.0;
  if (channel < channels)
    for (int block = line; block < blocks; block += 32) {
      const float* part = parts + (i64)block * 2 * channels + channel;
      a += part[0]; b += part[channels];
    }
  as[line][lane] = a; bs[line][lane] = b;
  __syncthreads();
  if (line != 0 || channel >= channels) return;
  for (int other = 1; other < 32; other++) { a += as[other][lane]; b += bs[other][lane]; }
  dshift[channel] = (float)a;
  dscale[channel] = (float)b;
}

// dx = factor * (d - mean(d) - normed * mean(d * normed)), d the gradient behind the ReLU, which is the residual's. The means
// are the sums dshift and dscale times `share`: the sums may be over the rows of other maps as well.
template <Mask MASK, typename T, int V>
__device__ __forceinline__ void norm_gradient_of(const T* dy, const T* x, const T* y, const float* mean,
    const float* variance, const float* scale, const float* shift, float epsilon, const float* dshift,
    const float* dscale, float share, T* dx, T* dresidual, i64 rows, int channels, int width) {
  int groups = channels / V;
  Tile t = tile(groups, width);
  if (!t.inside) return;
  float m[V], factor[V], offset[V], a[V], b[V];
  #pragma unroll
  for (int j = 0; j < V; j++) {
    int c = t.group * V + j;
    float deviation = sqrtf(variance[c] + epsilon);
    m[j] = mean[c]; factor[j] = scale[c] / deviation; offset[j] = shift[c];
    a[j] = dshift[c] * share; b[j] = dscale[c] * share / deviation;
  }
  i64 step = (i64)gridDim.x * t.lines;
  for (i64 first = (i64)blockIdx.x * t.lines + t.line; first < rows; first += 2 * step) {
    Group<T, V> g[2], v[2], o[2];
    #pragma unroll
    for (int u = 0; u < 2; u++) {
      i64 row = first + u * step;
      if (row < rows) {
        g[u] = load<T, V>(dy, row * groups + t.group);
        v[u] = load<T, V>(x, row * groups + t.group);
        if (MASK == FROM_Y) o[u] = load<T, V>(y, row * groups + t.group);
      }
    }
    #pragma unroll
    for (int u = 0; u < 2; u++) {
      i64 row = first + u * step;
      if (row < rows) {
        float d[V], out[V];
        #pragma unroll
        for (int j = 0; j < V; j++) {
          float f = v[u].get(j);
          d[j] = masked<T, V, MASK>(g[u].get(j), f, factor[j], offset[j], m[j], o[u], j);
          out[j] = factor[j] * (d[j] - a[j] - (f - m[j]) * b[j]);
        }
        store<T, V>(dx, out, row * groups + t.group);
        if (dresidual) store<T, V>(dresidual, d, row * groups + t.group);
      }
    }
  }
}

template <typename T, int V>
__device__ __forceinline__ void norm_gradient(const T* dy, const T* x, const T* y, const float* mean,
    const float* variance, const float* scale, const float* shift, float epsilon, const float* dshift,
    const float* dscale, float share, T* dx, T* dresidual, i64 rows, int channels, int width, int mask) {
  #define GRADIENT(MASK) norm_gradient_of<MASK, T, V>( \
      dy, x, y, mean, variance, scale, shift, epsilon, dshift, dscale, share, dx, dresidual, rows, channels, width)
  if (mask == FROM_X) GRADIENT(FROM_X);
  else if (mask == FROM_Y) GRADIENT(FROM_Y);
  else GRADIENT(NO_MASK);
  #undef GRADIENT
}

// None of the maps and values overlaps one that is written. Three blocks of 256 threads stay on a multiprocessor (80 registers
// a thread), of the gradient two (128): with three its registers would spill.
#define MAP(T) const T* __restrict__
#define VALUES const float* __restrict__
#define NORM(NAME, T, V) \
  extern "C" __global__ void __launch_bounds__(256, 3) norm_statistics_##NAME( \
      MAP(T) x, float* __restrict__ parts, i64 rows, int channels, int width) { \
    norm_statistics<T, V>(x, parts, rows, channels, width); } \
  extern "C" __global__ void __launch_bounds__(256, 3) norm_apply_##NAME(MAP(T) x, MAP(T) residual, \
      T* __restrict__ y, VALUES mean, VALUES variance, VALUES scale, VALUES shift, float epsilon, i64 rows, int channels, \
      int width, int relu) { \
    norm_apply<T, V>(x, residual, y, mean, variance, scale, shift, epsilon, rows, channels, width, relu); } \
  extern "C" __global__ void __launch_bounds__(256, 3) norm_sums_##NAME(MAP(T) dy, MAP(T) x, MAP(T) y, VALUES mean, \
      VALUES variance, VALUES scale, VALUES shift, float epsilon, float* __restrict__ parts, i64 rows, int channels, \
      int width, int mask) { \
    norm_sums<T, V>(dy, x, y, mean, variance, scale, shift, epsilon, parts, rows, channels, width, mask); } \
  extern "C" __global__ void __launch_bounds__(256, 2) norm_gradient_##NAME(MAP(T) dy, MAP(T) x, MAP(T) y, VALUES mean, \
      VALUES variance, VALUES scale, VALUES shift, float epsilon, VALUES dshift, VALUES dscale, float share, \
      T* __restrict__ dx, T* __restrict__ dresidual, i64 rows, int channels, int width, int mask) { \
    norm_gradient<T, V>(dy, x, y, mean, variance, scale, shift, epsilon, dshift, dscale, share, dx, dresidual, rows, \
      channels, width, mask); }
NORM(bf16_8, bf16, 8)
NORM(bf16_1, bf16, 1)
NORM(f32_4, float, 4)
NORM(f32_1, float, 1)

// Many vectors in one launch, whose pointers come by value, and how alike projections are.

// A vector whose squared length is taken in chunks, the first of which is the launch's `first`th.
#define VECTORS 160
#define CHUNK 16384
struct Vector { const float* at; i64 count; i64 first; };
struct Vectors { Vector at[VECTORS]; };

// The vector of a chunk: the last that begins at it or before. One without values has no chunk.
__device__ __forceinline__ int vector_of(const Vectors& vectors, int count, i64 chunk) {
  int low = 0, high = count;
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (vectors.at[middle].first <= chunk) low = middle; else high = middle;
  }
  return low;
}

// parts: a sum of squares for each chunk. A block takes one, four values at a time: vectors begin at 16 bytes.
extern "C" __global__ void __launch_bounds__(256) vectors_squares(Vectors vectors, int count, float* __restrict__ parts) {
  const Vector& vector = vectors.at[vector_of(vectors, count, blockIdx.x)];
  i64 first = (blockIdx.x - vector.first) * CHUNK, left = vector.count - first;
  int length = left < CHUNK ? (int)left : CHUNK;
  const float* from = vector.at + first;
  float sum = 0.f;
  #pragma unroll 4
  for (int i = threadIdx.x; i < length / 4; i += blockDim.x) {
    Group<float, 4> v = load<float, 4>(from, i);
    #pragma unroll
    for (int j = 0; j < 4; j++) sum += v.at[j] * v.at[j];
  }
  int last = length / 4 * 4 + threadIdx.x;
  if (last < length) sum += from[last] * from[last];
  sum = block_sum(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// The sum of each vector's chunks: a block for each vector.
extern "C" __global__ void __launch_bounds__(256) vectors_squares_merge(Vectors vectors, const float* __restrict__ parts,
    float* __restrict__ squares) {
  const Vector& vector = vectors.at[blockIdx.x];
  i64 chunks = (vector.count + CHUNK - 1) / CHUNK;
  float sum = 0.f;
  for (i64 chunk = threadIdx.x; chunk < chunks; chunk += blockDim.x) sum += parts[vector.first + chunk];
  sum = block_sum(sum);
  if (threadIdx.x == 0) squares[blockIdx.x] = sum;
}

// Vectors one behind the other: `first` is the place of a vector's first value. blockIdx.y says which.
extern "C" __global__ void vectors_join(Vectors vectors, float* __restrict__ to) {
  const Vector& one = vectors.at[blockIdx.y];
  EACH(one) to[one.first + i] = one.at[i];
}

// Running statistics: value * (1 - momentum) + batch * factor * momentum. blockIdx.y says which.
#define RUNNINGS 80
struct Running { const float *value, *batch; float* to; i64 count; float factor; };
struct Runnings { Running at[RUNNINGS]; };

extern "C" __global__ void vectors_running(Runnings all, float kept, float momentum) {
  const Running& one = all.at[blockIdx.y];
  EACH(one) one.to[i] = one.value[i] * kept + one.batch[i] * one.factor * momentum;
}

// One over the length of each row of [rows, dim], at least 1e-12: a warp a row.
extern "C" __global__ void similarity_lengths(const float* __restrict__ x, float* __restrict__ inverses, i64 rows, int dim) {
  i64 row = ((i64)blockIdx.x * blockDim.x + threadIdx.x) / 32;
  int lane = threadIdx.x % 32;
  float sum = 0.f;
  if (row < rows) for (int i = lane; i < dim; i += 32) { float v = x[row * dim + i]; sum += v * v; }
  for (int offset = 16; offset; offset /= 2) sum += __shfl_down_sync(0xffffffffu, sum, offset);
  float length = sqrtf(sum);
  // Not fmaxf, which hides what is not a number.
  if (row < rows && lane == 0) inverses[row] = 1.f / (length < 1e-12f ? 1e-12f : length);
}

// x: [images, patches, dim]. Of the images' sums of unit vectors, the square of their sum less the sum of their squares, for
// each dimension: 32 of them a block, 32 lines of threads.
extern "C" __global__ void __launch_bounds__(1024) similarity_columns(const float* __restrict__ x,
    const float* __restrict__ inverses, double* __restrict__ pairs, i64 images, int patches, int dim) {
  __shared__ double alls[32][33], owns[32][33];
  int lane = threadIdx.x % 32, line = threadIdx.x / 32, column = blockIdx.x * 32 + lane;
  double all = 0.0, own = 0.0;
  if (column < dim)
    for (i64 image = line; image < images; image += 32) {
      float sum = 0.f;
      #pragma unroll 4
      for (int patch = 0; patch < patches; patch++) {
        i64 row = image * patches + patch;
        sum += x[row * dim + column] * inverses[row];
      }
      all += sum; own += (double)sum * sum;
    }
  alls[line][lane] = all; owns[line][lane] = own;
  __syncthreads();
  if (line != 0 || column >= dim) return;
  for (int other = 1; other < 32; other++) { all += alls[other][lane]; own += owns[other][lane]; }
  pairs[column] = all * all - own;
}

// The mean over all pairs of patches of different images: one block of 32 threads.
extern "C" __global__ void similarity_mean(const double* __restrict__ pairs, float* __restrict__ to, int dim, double count) {
  __shared__ double sums[32];
  double sum = 0.0;
  for (int i = threadIdx.x; i < dim; i += 32) sum += pairs[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int other = 1; other < 32; other++) sum += sums[other];
  *to = (float)(sum / count);
}

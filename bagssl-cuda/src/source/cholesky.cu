// Symmetric positive definite matrices [matrix, side, side], row by row, in tiles of 64 x 64: A = L L^T, and X = L^-1, from
// which A^-1 = X^T X is one product.
//
// Gauss and Jordan's elimination, a column of tiles at a time, over all blocks: what lies right of that column is what is
// left to factor (in `factors`), what lies left of it is of the inverse (in `roots`), and each step subtracts from both the
// column times the row. Within a tile the same is done column by column. Of A only the lower triangle is read.
//
// A block has 256 threads, each of which holds 16 values of a tile: those of rows y + 16 i, columns x + 16 j. Beyond the last
// row a matrix goes on as the identity.
#define TILE 64
#define HELD 4

// Rows of 68 values: aligned to groups of four, and eight rows at one column lie in different banks.
struct __align__(16) Square { float at[TILE][TILE + 4]; };
typedef float Values[HELD][HELD];

__device__ __forceinline__ float entry(const float* matrix, int side, int row, int column) {
  return row < side && column < side ? matrix[(i64)row * side + column] : row == column ? 1.f : 0.f;
}

// A tile to shared memory, as it is or turned.
template <bool TURNED>
__device__ __forceinline__ void load_tile(Square& to, const float* matrix, int side, int row, int column) {
  for (int at = threadIdx.x; at < TILE * TILE; at += blockDim.x) {
    if (TURNED) {
      // A warp takes 4 rows of 8 values, which lie in different banks when they are turned.
      int lane = at % 32, patch = at / 32, y = patch / 8 * 4 + lane / 8, x = patch % 8 * 8 + lane % 8;
      to.at[x][y] = entry(matrix, side, row * TILE + y, column * TILE + x);
    } else to.at[at / TILE][at % TILE] = entry(matrix, side, row * TILE + at / TILE, column * TILE + at % TILE);
  }
}

// sum += a @ b^T.
__device__ __forceinline__ void multiply_tiles(Values& sum, const Square& a, const Square& b) {
  int x = threadIdx.x % 16, y = threadIdx.x / 16;
  #pragma unroll 2
  for (int group = 0; group < TILE / 4; group++) {
    Group<float, 4> left[HELD], right[HELD];
    #pragma unroll
    for (int i = 0; i < HELD; i++) {
      left[i] = load<float, 4>(a.at[y + 16 * i], group);
      right[i] = load<float, 4>(b.at[x + 16 * i], group);
    }
    #pragma unroll
    for (int i = 0; i < HELD; i++)
      #pragma unroll
      for (int j = 0; j < HELD; j++)
        #pragma unroll
        for (int k = 0; k < 4; k++) sum[i][j] += left[i].at[k] * right[j].at[k];
  }
}

// The threads' values to a tile of a matrix.
__device__ __forceinline__ void store_tile(float* matrix, int side, int row, int column, const Values& values) {
  int x = threadIdx.x % 16, y = threadIdx.x / 16;
  #pragma unroll
  for (int i = 0; i < HELD; i++)
    #pragma unroll
    for (int j = 0; j < HELD; j++) {
      int down = row * TILE + y + 16 * i, across = column * TILE + x + 16 * j;
      if (down < side && across < side) matrix[(i64)down * side + across] = values[i][j];
    }
}

// What is left of a tile of the diagonal to the inverse of its factor, zeros above. A pivot that is not positive is no number,
// and so is all that follows.
__device__ __forceinline__ void invert_factor(Values& values) {
  // Of step k the values left of the pivot in its row, the pivot, and those below it in its column.
  __shared__ float lines[2][TILE];
  int x = threadIdx.x % 16, y = threadIdx.x / 16;
  #pragma unroll
  for (int part = 0; part < HELD; part++)
    for (int own = 0; own < 16; own++) {
      int pivot = 16 * part + own;
      // Two lines in turn: who writes the one has seen all read it.
      float* line = lines[own % 2];
      #pragma unroll
      for (int i = 0; i < HELD; i++) {
        if (x == own && y + 16 * i >= pivot) line[y + 16 * i] = values[i][part];
        if (y == own && x + 16 * i < pivot) line[x + 16 * i] = values[part][i];
      }
      __syncthreads();
      float scale = line[pivot] > 0.f ? 1.f / sqrtf(line[pivot]) : __uint_as_float(0x7fffffffu);
      #pragma unroll
      for (int j = 0; j < HELD; j++) {
        int column = x + 16 * j;
        float across = column == pivot ? scale : line[column] * scale;
        #pragma unroll
        for (int i = 0; i < HELD; i++) {
          int row = y + 16 * i;
          float before = column == pivot ? 0.f : values[i][j];
          if (row > pivot) values[i][j] = before - line[row] * scale * across;
          if (row == pivot && column <= pivot) values[i][j] = across;
        }
      }
    }
  #pragma unroll
  for (int i = 0; i < HELD; i++)
    #pragma unroll
    for (int j = 0; j < HELD; j++)
      if (x + 16 * j > y + 16 * i) values[i][j] = 0.f;
}

// Subtracts column times row of a step, and inverts the factor of the next tile of the diagonal. The first step, -1, has
// nothing to subtract: it copies the matrices to `factors`, and writes the zeros above the diagonal of `roots`.
// Blocks: x over the tiles of all rows below the step, y over matrices.
extern "C" __global__ void cholesky_subtract(const float* matrices, float* factors, float* roots, int side, int step) {
  __shared__ Square a, b;
  i64 first = (i64)blockIdx.y * side * side;
  float *factor = factors + first, *root = roots + first;
  int tiles = (side + TILE - 1) / TILE, column = blockIdx.x % tiles, row = blockIdx.x / tiles + step + 1;
  int x = threadIdx.x % 16, y = threadIdx.x / 16;
  bool above = column > row, inverse = column <= step;
  Values values = {}, sum = {};
  if (above && step >= 0) return;
  if (!above && step >= 0) {
    load_tile<false>(a, factor, side, row, step);
    if (inverse) load_tile<true>(b, root, side, step, column);
    else load_tile<false>(b, factor, side, column, step);
    __syncthreads();
    multiply_tiles(sum, a, b);
  }
  // What was there: nothing yet above the diagonal, nor in the step's own column of the inverse.
  const float* before = step < 0 ? matrices + first : inverse ? root : factor;
  if (!above && column != step)
    #pragma unroll
    for (int i = 0; i < HELD; i++)
      #pragma unroll
      for (int j = 0; j < HELD; j++)
        values[i][j] = entry(before, side, row * TILE + y + 16 * i, column * TILE + x + 16 * j);
  #pragma unroll
  for (int i = 0; i < HELD; i++)
    #pragma unroll
    for (int j = 0; j < HELD; j++) values[i][j] -= sum[i][j];
  bool next = row == column && row == step + 1;
  if (next) invert_factor(values);
  store_tile(above || inverse || next ? root : factor, side, row, column, values);
}

// The column of a step, of L, and its row, of X: what is left of them times the inverse of the diagonal's factor.
// Blocks: x over tiles, those of the row before those of the column, y over matrices.
extern "C" __global__ void cholesky_scale(float* factors, float* roots, int side, int step) {
  __shared__ Square a, b;
  i64 first = (i64)blockIdx.y * side * side;
  float *factor = factors + first, *root = roots + first;
  int tile = blockIdx.x;
  if (tile == step) return;
  Values product = {};
  if (tile > step) {
    load_tile<false>(a, factor, side, tile, step);
    load_tile<false>(b, root, side, step, step);
  } else {
    load_tile<false>(a, root, side, step, step);
    load_tile<true>(b, root, side, step, tile);
  }
  __syncthreads();
  multiply_tiles(product, a, b);
  if (tile > step) store_tile(factor, side, tile, step, product);
  else store_tile(root, side, step, tile, product);
}

// The logarithm of each matrix's determinant, from the diagonal of X. A block of 256 threads for each matrix.
extern "C" __global__ void cholesky_logarithms(const float* roots, float* logarithms, int side) {
  __shared__ double parts[256];
  const float* root = roots + (i64)blockIdx.x * side * side;
  double sum = 0;
  for (int at = threadIdx.x; at < side; at += blockDim.x) sum += logf(root[(i64)at * side + at]);
  parts[threadIdx.x] = sum;
  for (int half = 128; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
  }
  if (threadIdx.x == 0) logarithms[blockIdx.x] = (float)(-2 * parts[0]);
}

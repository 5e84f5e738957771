// Symmetric positive definite matrices [matrix, side, side], row by row, in tiles of 32 x 32: A = L L^T, and X = L^-1, from
// which A^-1 = X^T X is one product. A block has 256 threads, each of which holds four values of a tile: those of rows y and
// y + 16, columns x and x + 16. Beyond the last row a matrix goes on as the identity.
#define TILE 32

typedef float Square[TILE][TILE + 1];

__device__ __forceinline__ float entry(const float* matrix, int side, int row, int column) {
  return row < side && column < side ? matrix[(i64)row * side + column] : row == column ? 1.f : 0.f;
}

__device__ __forceinline__ void put_entry(float* matrix, int side, int row, int column, float value) {
  if (row < side && column < side) matrix[(i64)row * side + column] = value;
}

__device__ __forceinline__ void load_tile(Square& to, const float* matrix, int side, int row, int column) {
  for (int at = threadIdx.x; at < TILE * TILE; at += blockDim.x)
    to[at / TILE][at % TILE] = entry(matrix, side, row * TILE + at / TILE, column * TILE + at % TILE);
}

// sum += a @ b, or a @ b^T.
template <bool TURNED>
__device__ __forceinline__ void multiply_tiles(float (&sum)[2][2], const Square& a, const Square& b) {
  int x = threadIdx.x % 16, y = threadIdx.x / 16;
  #pragma unroll 8
  for (int k = 0; k < TILE; k++)
    #pragma unroll
    for (int i = 0; i < 2; i++)
      #pragma unroll
      for (int j = 0; j < 2; j++)
        sum[i][j] += a[y + 16 * i][k] * (TURNED ? b[x + 16 * j][k] : b[k][x + 16 * j]);
}

// The threads' values as a tile.
__device__ __forceinline__ void keep_tile(Square& to, const float (&values)[2][2]) {
  int x = threadIdx.x % 16, y = threadIdx.x / 16;
  for (int i = 0; i < 2; i++) for (int j = 0; j < 2; j++) to[y + 16 * i][x + 16 * j] = values[i][j];
}

// The threads' values times a sign, to a matrix.
__device__ __forceinline__ void store_tile(float* matrix, int side, int row, int column, const float (&values)[2][2], float sign) {
  int x = threadIdx.x % 16, y = threadIdx.x / 16;
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 2; j++)
      put_entry(matrix, side, row * TILE + y + 16 * i, column * TILE + x + 16 * j, sign * values[i][j]);
}

// Factors a tile where it is; above the diagonal it is left as it was.
__device__ __forceinline__ void factor_tile(Square& a) {
  for (int k = 0; k < TILE; k++) {
    __syncthreads();
    // All read the pivot before one thread writes it.
    float root = sqrtf(a[k][k]);
    __syncthreads();
    int row = threadIdx.x;
    if (row == k) a[k][k] = root;
    if (row > k && row < TILE) a[row][k] /= root;
    __syncthreads();
    for (int at = threadIdx.x; at < TILE * TILE; at += blockDim.x) {
      int i = at / TILE, j = at % TILE;
      if (j > k && i >= j) a[i][j] -= a[i][k] * a[j][k];
    }
  }
  __syncthreads();
}

// The inverse of a lower triangle, a column each thread; zeros above.
__device__ __forceinline__ void invert_triangle(Square& to, const Square& a) {
  int column = threadIdx.x;
  if (column < TILE)
    for (int row = 0; row < TILE; row++) {
      float sum = row == column ? 1.f : 0.f;
      for (int k = column; k < row; k++) sum -= a[row][k] * to[k][column];
      to[row][column] = row < column ? 0.f : sum / a[row][row];
    }
  __syncthreads();
}

// L, below the diagonal's tiles; the diagonal's tiles of X; the logarithm of the determinant. A block for each matrix.
extern "C" __global__ void cholesky(const float* matrices, float* factors, float* inverses, float* logarithms, int side) {
  __shared__ Square a, b, diagonal;
  i64 first = (i64)blockIdx.x * side * side;
  const float* matrix = matrices + first;
  float *factor = factors + first, *inverse = inverses + first;
  int tiles = (side + TILE - 1) / TILE, x = threadIdx.x % 16, y = threadIdx.x / 16;
  double logarithm = 0;
  for (int column = 0; column < tiles; column++)
    for (int row = column; row < tiles; row++) {
      float sum[2][2] = {};
      for (int k = 0; k < column; k++) {
        __syncthreads();
        load_tile(a, factor, side, row, k);
        load_tile(b, factor, side, column, k);
        __syncthreads();
        multiply_tiles<true>(sum, a, b);
      }
      for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
          sum[i][j] = entry(matrix, side, row * TILE + y + 16 * i, column * TILE + x + 16 * j) - sum[i][j];
      __syncthreads();
      keep_tile(a, sum);
      __syncthreads();
      if (row == column) {
        factor_tile(a);
        if (threadIdx.x == 0) for (int k = 0; k < TILE; k++) logarithm += logf(a[k][k]);
        invert_triangle(diagonal, a);
        for (int i = 0; i < 2; i++) for (int j = 0; j < 2; j++) sum[i][j] = diagonal[y + 16 * i][x + 16 * j];
        store_tile(inverse, side, row, row, sum, 1.f);
      } else {
        // What is left, times the transposed inverse of the diagonal's tile.
        float solved[2][2] = {};
        multiply_tiles<true>(solved, a, diagonal);
        store_tile(factor, side, row, column, solved, 1.f);
      }
      __syncthreads();
    }
  if (threadIdx.x == 0) logarithms[blockIdx.x] = (float)(2 * logarithm);
}

// The rest of X: a block for each column of tiles (blockIdx.x) and each matrix (blockIdx.y).
extern "C" __global__ void triangle_inverse(const float* factors, float* inverses, int side) {
  __shared__ Square a, b;
  i64 first = (i64)blockIdx.y * side * side;
  const float* factor = factors + first;
  float* inverse = inverses + first;
  int tiles = (side + TILE - 1) / TILE, column = blockIdx.x;
  const float zeros[2][2] = {};
  for (int row = 0; row < column; row++) store_tile(inverse, side, row, column, zeros, 1.f);
  for (int row = column + 1; row < tiles; row++) {
    float sum[2][2] = {}, solved[2][2] = {};
    for (int k = column; k < row; k++) {
      __syncthreads();
      load_tile(a, factor, side, row, k);
      load_tile(b, inverse, side, k, column);
      __syncthreads();
      multiply_tiles<false>(sum, a, b);
    }
    __syncthreads();
    load_tile(a, inverse, side, row, row);
    keep_tile(b, sum);
    __syncthreads();
    multiply_tiles<false>(solved, a, b);
    store_tile(inverse, side, row, column, solved, -1.f);
  }
}

// cuBLAS: products of matrices that lie column by column, in f32 or TF32.
#include <vector>

#include "driver.hpp"
#include "numbers.hpp"
#include "record.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { NORMAL = 0, TRANSPOSED = 1, REAL_32F = 0, REAL_16BF = 14, COMPUTE_32F = 68, COMPUTE_32F_FAST_TF32 = 77 };

struct Handle { StubStream* stream = nullptr; };

EXPORT int cublasCreate_v2(Handle** handle) { if (must_fail("cublasCreate")) return NOT_INITIALIZED; *handle = new Handle; return SUCCESS; }
EXPORT int cublasDestroy_v2(Handle* handle) { delete handle; return SUCCESS; }
EXPORT int cublasSetStream_v2(Handle* handle, StubStream* stream) { handle->stream = stream; return SUCCESS; }
EXPORT int cublasGetProperty(int part, int* value) { *value = part == 0 ? 13 : 0; return SUCCESS; }

struct Matrix { const void* at; Number type; int64_t pitch, stride; bool turned; };

// A factor as [rows, columns], row by row.
static std::vector<float> factor(const Matrix& m, int64_t which, int rows, int columns, bool round) {
  std::vector<float> values((size_t)rows * columns);
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) {
      float value = get(m.type, m.at, which * m.stride + (m.turned ? (int64_t)i * m.pitch + j : (int64_t)j * m.pitch + i));
      values[(size_t)i * columns + j] = round ? tf32(value) : value;
    }
  return values;
}

EXPORT int cublasGemmStridedBatchedEx(Handle* handle, int turn_a, int turn_b, int m, int n, int k, const void* alpha,
    const void* a, int type_a, int lda, long long stride_a, const void* b, int type_b, int ldb, long long stride_b,
    const void* beta, void* c, int type_c, int ldc, long long stride_c, int count, int compute, int) {
  if (must_fail("cublasGemmStridedBatchedEx")) return EXECUTION_FAILED;
  auto is_type = [](int type) { return type == REAL_32F || type == REAL_16BF; };
  bool tf = compute == COMPUTE_32F_FAST_TF32;
  if (!is_type(type_a) || type_a != type_b || type_c != REAL_32F || (compute != COMPUTE_32F && !tf)) return NOT_SUPPORTED;
  if ((turn_a | turn_b) > 1 || m < 0 || n < 0 || k < 0 || count < 0) return INVALID_VALUE;
  if (lda < (turn_a ? k : m) || ldb < (turn_b ? n : k) || ldc < m) return INVALID_VALUE;
  float scale = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  auto number = [](int type) { return type == REAL_32F ? Number::F32 : Number::Bf16; };
  Matrix left = {a, number(type_a), lda, stride_a, turn_a == TRANSPOSED}, right = {b, number(type_b), ldb, stride_b, turn_b == TRANSPOSED};
  record("cublasGemmStridedBatchedEx m=%d n=%d k=%d count=%d", m, n, k, count);
  stub_enqueue(handle->stream, "cublas", [=] {
    std::vector<float> sums(m);
    for (int which = 0; which < count; which++) {
      // a as [k, m] and b as [n, k], so that the innermost loop goes along the columns of c.
      Matrix turned_left = left, turned_right = right;
      turned_left.turned = !left.turned; turned_right.turned = !right.turned;
      std::vector<float> x = factor(turned_left, which, k, m, tf), y = factor(turned_right, which, n, k, tf);
      float* to = static_cast<float*>(c) + which * stride_c;
      for (int j = 0; j < n; j++) {
        std::fill(sums.begin(), sums.end(), 0.f);
        for (int l = 0; l < k; l++) {
          float value = y[(size_t)j * k + l];
          const float* row = &x[(size_t)l * m];
          for (int i = 0; i < m; i++) sums[i] += value * row[i];
        }
        float* column = to + (int64_t)j * ldc;
        for (int i = 0; i < m; i++) column[i] = scale * sums[i] + (keep == 0.f ? 0.f : keep * column[i]);
      }
    }
  });
  return SUCCESS;
}

// Tensor cores: every lane of a warp holds whole matrices and makes the whole product, which is slow and right.
#pragma once
#include "cuda_runtime.h"
#include "cuda_bf16.h"
#include "cuda_fp16.h"

// To 10 bits, ties to even.
inline float __float_to_tf32(float value) {
  unsigned bits = __float_as_uint(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) return value;
  bits += 0xfffu + (bits >> 13 & 1u);
  return __uint_as_float(bits & ~0x1fffu);
}

namespace nvcuda {
namespace wmma {
struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };
namespace precision { struct tf32 {}; }

template <typename T> struct Held { using Type = T; };
template <> struct Held<precision::tf32> { using Type = float; };
template <typename Use, int M, int N, int K> struct Sides;
template <int M, int N, int K> struct Sides<matrix_a, M, N, K> { static constexpr int rows = M, columns = K; };
template <int M, int N, int K> struct Sides<matrix_b, M, N, K> { static constexpr int rows = K, columns = N; };
template <int M, int N, int K> struct Sides<accumulator, M, N, K> { static constexpr int rows = M, columns = N; };

template <typename Use, int M, int N, int K, typename T, typename Layout = void> struct fragment : Sides<Use, M, N, K> {
  static constexpr int num_elements = fragment::rows * fragment::columns;
  typename Held<T>::Type x[num_elements];
};

template <typename F, typename T> inline void fill_fragment(F& f, T value) { for (auto& one : f.x) one = value; }
template <typename F, typename T> inline void load(F& f, const T* from, unsigned pitch, bool by_rows) {
  for (int i = 0; i < F::rows; i++)
    for (int j = 0; j < F::columns; j++) f.x[i * F::columns + j] = by_rows ? from[i * pitch + j] : from[j * pitch + i];
  __syncwarp();
}
template <typename U, int M, int N, int K, typename T, typename V>
inline void load_matrix_sync(fragment<U, M, N, K, T, row_major>& f, const V* from, unsigned pitch) { load(f, from, pitch, true); }
template <typename U, int M, int N, int K, typename T, typename V>
inline void load_matrix_sync(fragment<U, M, N, K, T, col_major>& f, const V* from, unsigned pitch) { load(f, from, pitch, false); }
template <typename F, typename V> inline void load_matrix_sync(F& f, const V* from, unsigned pitch, layout_t layout) {
  load(f, from, pitch, layout == mem_row_major);
}
template <typename F, typename V> inline void store_matrix_sync(V* to, const F& f, unsigned pitch, layout_t layout) {
  __syncwarp();
  for (int i = 0; i < F::rows; i++)
    for (int j = 0; j < F::columns; j++) to[layout == mem_row_major ? i * pitch + j : j * pitch + i] = f.x[i * F::columns + j];
  __syncwarp();
}
template <typename D, typename A, typename B, typename C> inline void mma_sync(D& d, const A& a, const B& b, const C& c) {
  static_assert(A::columns == B::rows, "inner sizes");
  for (int i = 0; i < A::rows; i++)
    for (int j = 0; j < B::columns; j++) {
      float sum = (float)c.x[i * B::columns + j];
      for (int k = 0; k < A::columns; k++) sum += (float)a.x[i * A::columns + k] * (float)b.x[k * B::columns + j];
      d.x[i * B::columns + j] = sum;
    }
  __syncwarp();
}
}  // namespace wmma
}  // namespace nvcuda

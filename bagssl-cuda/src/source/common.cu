// Types and helpers of all kernels. Nothing is included, so that no headers are needed to compile them.
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct bf16 { u16 bits; };

__device__ __forceinline__ float value(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ float value(float x) { return x; }

// To the nearest, ties to even; what is not a number stays so. `rounded` gives two values, the first in the lower half.
#if __CUDA_ARCH__ >= 800
__device__ __forceinline__ void put(bf16& to, float x) { asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(x)); }
__device__ __forceinline__ u32 rounded(float first, float second) {
  u32 both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(second), "f"(first));
  return both;
}
#else
__device__ __forceinline__ void put(bf16& to, float x) {
  u32 bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) { to.bits = (u16)((bits >> 16) | 0x40u); return; }
  to.bits = (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
__device__ __forceinline__ u32 rounded(float first, float second) {
  bf16 a, b;
  put(a, first); put(b, second);
  return (u32)b.bits << 16 | a.bits;
}
#endif
__device__ __forceinline__ void put(float& to, float x) { to = x; }

// V values that are read and written together, as they lie in memory: two of bf16 in a word, unless there is only one.
template <typename T, int V> struct __align__(sizeof(T) * V) Group {
  T at[V];
  __device__ __forceinline__ float get(int j) const { return value(at[j]); }
  __device__ __forceinline__ void set(const float* from) {
    #pragma unroll
    for (int j = 0; j < V; j++) put(at[j], from[j]);
  }
};
template <> struct __align__(16) Group<bf16, 8> {
  u32 at[4];
  __device__ __forceinline__ float get(int j) const {
    return __uint_as_float(j % 2 ? at[j / 2] & 0xffff0000u : at[j / 2] << 16);
  }
  __device__ __forceinline__ void set(const float* from) {
    #pragma unroll
    for (int j = 0; j < 4; j++) at[j] = rounded(from[2 * j], from[2 * j + 1]);
  }
};

template <typename T, int V>
__device__ __forceinline__ Group<T, V> load(const T* from, i64 index) {
  return reinterpret_cast<const Group<T, V>*>(from)[index];
}

template <typename T, int V>
__device__ __forceinline__ void store(T* to, const float* from, i64 index) {
  Group<T, V> group;
  group.set(from);
  reinterpret_cast<Group<T, V>*>(to)[index] = group;
}

// Types and helpers of all kernels. Nothing is included, so that no headers are needed to compile them.
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct bf16 { u16 bits; };

__device__ __forceinline__ float value(bf16 x) { return __uint_as_float((u32)x.bits << 16); }
__device__ __forceinline__ float value(float x) { return x; }

// To the nearest, ties to even; what is not a number stays so.
__device__ __forceinline__ void put(bf16& to, float x) {
  u32 bits = __float_as_uint(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) { to.bits = (u16)((bits >> 16) | 0x40u); return; }
  to.bits = (u16)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
__device__ __forceinline__ void put(float& to, float x) { to = x; }

// V values that are read and written together.
template <typename T, int V> struct __align__(sizeof(T) * V) Group { T at[V]; };

template <typename T, int V>
__device__ __forceinline__ void load(float* to, const T* from, i64 index) {
  Group<T, V> group = reinterpret_cast<const Group<T, V>*>(from)[index];
  #pragma unroll
  for (int j = 0; j < V; j++) to[j] = value(group.at[j]);
}

template <typename T, int V>
__device__ __forceinline__ void store(T* to, const float* from, i64 index) {
  Group<T, V> group;
  #pragma unroll
  for (int j = 0; j < V; j++) put(group.at[j], from[j]);
  reinterpret_cast<Group<T, V>*>(to)[index] = group;
}

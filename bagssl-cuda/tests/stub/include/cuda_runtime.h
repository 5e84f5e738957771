// CUDA C++ as host code: what NVRTC knows by itself and what kernels include. Threads of a block are fibers that the stub's
// driver runs one after the other; they change at barriers. Memory of the device is memory of the host.
#pragma once

// The C library's functions, and their overloads for floats. No header of it is included: kernels compile in a fraction of the time.
extern "C" void* memcpy(void*, const void*, unsigned long) noexcept;
#define STUB_UNARY(NAME) \
  extern "C" double NAME(double) noexcept; \
  extern "C" float NAME##f(float) noexcept; \
  inline float NAME(float x) { return NAME##f(x); }
#define STUB_BINARY(NAME) \
  extern "C" double NAME(double, double) noexcept; \
  extern "C" float NAME##f(float, float) noexcept; \
  inline float NAME(float x, float y) { return NAME##f(x, y); }
STUB_UNARY(log) STUB_UNARY(log2) STUB_UNARY(log10) STUB_UNARY(log1p) STUB_UNARY(exp) STUB_UNARY(exp2) STUB_UNARY(expm1)
STUB_UNARY(sqrt) STUB_UNARY(cbrt) STUB_UNARY(sin) STUB_UNARY(cos) STUB_UNARY(tan) STUB_UNARY(asin) STUB_UNARY(acos)
STUB_UNARY(atan) STUB_UNARY(sinh) STUB_UNARY(cosh) STUB_UNARY(tanh) STUB_UNARY(asinh) STUB_UNARY(acosh) STUB_UNARY(atanh)
STUB_UNARY(ceil) STUB_UNARY(floor) STUB_UNARY(trunc) STUB_UNARY(round) STUB_UNARY(rint) STUB_UNARY(erf) STUB_UNARY(fabs)
STUB_BINARY(pow) STUB_BINARY(fmod) STUB_BINARY(atan2) STUB_BINARY(hypot) STUB_BINARY(fmin) STUB_BINARY(fmax)
STUB_BINARY(copysign) STUB_BINARY(remainder)
#undef STUB_UNARY
#undef STUB_BINARY
extern "C" double fma(double, double, double) noexcept;
extern "C" float fmaf(float, float, float) noexcept;
inline float fma(float x, float y, float z) { return fmaf(x, y, z); }
inline float abs(float x) { return fabsf(x); }
inline double abs(double x) { return fabs(x); }
inline int abs(int x) { return x < 0 ? -x : x; }
inline long long abs(long long x) { return x < 0 ? -x : x; }
template <typename T> inline bool isnan(T x) { return x != x; }
template <typename T> inline bool isinf(T x) { return __builtin_isinf(x); }
#define INFINITY __builtin_inff()
#define NAN __builtin_nanf("")

// `STUB_KERNEL` stays where the preprocessor has been, so that kernels can be found by it; then it is defined as nothing.
#define __global__ STUB_KERNEL
#define __device__
#define __host__
#define __forceinline__ inline
#define __constant__ static
// "extern __shared__" has become "extern" before: that is the block's dynamic memory below.
#define __shared__ static
#define __restrict__ __restrict
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __grid_constant__

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
inline uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return {x, y, z}; }

// What the driver tells a kernel, and what a kernel asks of it. `stub_bind` is called when the module is loaded.
struct StubBlock {
  uint3 thread, block;
  dim3 threads, blocks;
};
struct StubServices {
  // Waits for all threads of the block, or of the warp, that have not returned.
  void (*wait_block)();
  void (*wait_warp)();
  // The threads of the caller's warp that have not returned, as bits.
  unsigned (*lanes)();
};
static StubBlock stub_block;
static const StubServices* stub_services;
extern "C" __attribute__((visibility("default"))) StubBlock* stub_bind(const StubServices* services) {
  stub_services = services;
  return &stub_block;
}
__attribute__((aligned(1024))) unsigned char dynamic_shared_mem[228 * 1024];

#define threadIdx stub_block.thread
#define blockIdx stub_block.block
#define blockDim stub_block.threads
#define gridDim stub_block.blocks
#define warpSize 32
// No device: instructions that sources have for one are left out.
#define __CUDA_ARCH__ 0

// A kernel as the driver calls it: the sizes of its parameters, and a call with pointers to them.
struct StubEntry {
  void (*call)(void** parameters);
  unsigned count;
  unsigned sizes[64];
};
template <unsigned... I> struct StubIndices {};
template <unsigned N, unsigned... I> struct StubCount : StubCount<N - 1, N - 1, I...> {};
template <unsigned... I> struct StubCount<0, I...> { using Type = StubIndices<I...>; };
template <typename T> struct StubPlain { using Type = T; };
template <typename T> struct StubPlain<const T> { using Type = T; };
template <auto K> struct StubKernel;
template <typename... P, void (*K)(P...)> struct StubKernel<K> {
  template <unsigned... I> static void unpack(void** at, StubIndices<I...>) { K(*static_cast<typename StubPlain<P>::Type*>(at[I])...); }
  static void call(void** at) { unpack(at, typename StubCount<sizeof...(P)>::Type{}); }
  static constexpr StubEntry entry = {call, sizeof...(P), {sizeof(P)...}};
};
#define STUB_ENTRY(NAME) \
  extern "C" __attribute__((visibility("default"))) const StubEntry stub_entry_##NAME = StubKernel<NAME>::entry;

inline void __syncthreads() { stub_services->wait_block(); }
inline void __syncwarp(unsigned = ~0u) { stub_services->wait_warp(); }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline unsigned __activemask() { return stub_services->lanes(); }

// Exchanges of a warp: all lanes lay down their values, then each takes one.
static unsigned long long stub_lanes[1024];
inline unsigned stub_thread() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
template <typename T> inline T stub_exchange(T value, int from, bool valid) {
  static_assert(sizeof(T) <= 8, "a lane's value");
  unsigned own = stub_thread(), first = own / 32 * 32;
  memcpy(&stub_lanes[own], &value, sizeof(T));
  unsigned there = stub_services->lanes();
  stub_services->wait_warp();
  T other = value;
  if (valid && from >= 0 && from < 32 && (there >> from & 1)) memcpy(&other, &stub_lanes[first + from], sizeof(T));
  stub_services->wait_warp();
  return other;
}
inline int stub_lane() { return stub_thread() % 32; }
template <typename T> inline T __shfl_sync(unsigned, T value, int from, int = 32) { return stub_exchange(value, from & 31, true); }
template <typename T> inline T __shfl_xor_sync(unsigned, T value, int bits, int = 32) { return stub_exchange(value, stub_lane() ^ bits, true); }
template <typename T> inline T __shfl_up_sync(unsigned, T value, unsigned by, int = 32) {
  return stub_exchange(value, stub_lane() - (int)by, stub_lane() >= (int)by);
}
template <typename T> inline T __shfl_down_sync(unsigned, T value, unsigned by, int = 32) {
  return stub_exchange(value, stub_lane() + (int)by, stub_lane() + (int)by < 32);
}
inline unsigned __ballot_sync(unsigned, int value) {
  unsigned own = stub_thread(), first = own / 32 * 32, there = stub_services->lanes(), bits = 0;
  stub_lanes[own] = value != 0;
  stub_services->wait_warp();
  for (unsigned lane = 0; lane < 32; lane++) bits |= (there >> lane & 1) && stub_lanes[first + lane] ? 1u << lane : 0;
  stub_services->wait_warp();
  return bits;
}
inline int __all_sync(unsigned mask, int value) {
  unsigned there = stub_services->lanes();
  return __ballot_sync(mask, value) == there;
}
inline int __any_sync(unsigned mask, int value) { return __ballot_sync(mask, value) != 0; }

inline float __uint_as_float(unsigned bits) { float value; memcpy(&value, &bits, 4); return value; }
inline unsigned __float_as_uint(float value) { unsigned bits; memcpy(&bits, &value, 4); return bits; }
inline float __int_as_float(int bits) { return __uint_as_float((unsigned)bits); }
inline int __float_as_int(float value) { return (int)__float_as_uint(value); }

// Numbers. The host's functions are as good as the device's or better.
#define STUB_ORDER(TYPE, LEAST, MOST) \
  inline TYPE min(TYPE a, TYPE b) { return LEAST; } \
  inline TYPE max(TYPE a, TYPE b) { return MOST; }
#define STUB_ORDER_WHOLE(TYPE) STUB_ORDER(TYPE, b < a ? b : a, a < b ? b : a)
STUB_ORDER_WHOLE(int) STUB_ORDER_WHOLE(unsigned) STUB_ORDER_WHOLE(long) STUB_ORDER_WHOLE(unsigned long)
STUB_ORDER_WHOLE(long long) STUB_ORDER_WHOLE(unsigned long long)
// Of a signed and an unsigned number CUDA compares the unsigned ones.
#define STUB_ORDER_MIXED(SIGNED, TYPE) \
  inline TYPE min(SIGNED a, TYPE b) { return min((TYPE)a, b); } \
  inline TYPE min(TYPE a, SIGNED b) { return min(a, (TYPE)b); } \
  inline TYPE max(SIGNED a, TYPE b) { return max((TYPE)a, b); } \
  inline TYPE max(TYPE a, SIGNED b) { return max(a, (TYPE)b); }
STUB_ORDER_MIXED(int, unsigned) STUB_ORDER_MIXED(long, unsigned long) STUB_ORDER_MIXED(long long, unsigned long long)
STUB_ORDER(float, fminf(a, b), fmaxf(a, b)) STUB_ORDER(double, fmin(a, b), fmax(a, b))

inline float rsqrt(float x) { return 1.f / sqrtf(x); }
inline double rsqrt(double x) { return 1. / sqrt(x); }
inline float rhypot(float x, float y) { return 1.f / hypotf(x, y); }
inline float rsqrtf(float x) { return 1.f / sqrtf(x); }
inline float __logf(float x) { return logf(x); }
inline float __expf(float x) { return expf(x); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanhf(float x) { return tanhf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frsqrt_rn(float x) { return 1.f / sqrtf(x); }
inline float __frcp_rn(float x) { return 1.f / x; }
inline float __fdividef(float x, float y) { return x / y; }
inline float __saturatef(float x) { return fminf(fmaxf(x, 0.f), 1.f); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}

// One thread runs at a time.
#define STUB_ATOMIC(NAME, VALUE) \
  template <typename T, typename U> inline T NAME(T* at, U given) { T old = *at, value = (T)given; *at = (VALUE); return old; }
STUB_ATOMIC(atomicAdd, old + value) STUB_ATOMIC(atomicSub, old - value) STUB_ATOMIC(atomicExch, value)
STUB_ATOMIC(atomicMax, old < value ? value : old) STUB_ATOMIC(atomicMin, value < old ? value : old)
STUB_ATOMIC(atomicAnd, old & value) STUB_ATOMIC(atomicOr, old | value) STUB_ATOMIC(atomicXor, old ^ value)
template <typename T, typename U> inline T atomicCAS(T* at, U expected, U value) { T old = *at; if (old == (T)expected) *at = (T)value; return old; }

struct __attribute__((aligned(8))) float2 { float x, y; };
struct __attribute__((aligned(16))) float4 { float x, y, z, w; };
struct __attribute__((aligned(8))) uint2 { unsigned x, y; };
struct __attribute__((aligned(16))) uint4 { unsigned x, y, z, w; };
struct __attribute__((aligned(8))) int2 { int x, y; };
struct __attribute__((aligned(16))) int4 { int x, y, z, w; };

// IEEE's 16-bit floats. Each operation is done in float and rounded to the nearest, ties to even.
#pragma once
#include "cuda_runtime.h"
#include "half.h"

struct StubFp16 {
  static float up(unsigned short bits) { _Float16 half; memcpy(&half, &bits, 2); return (float)half; }
  static unsigned short down(float value) { _Float16 half = (_Float16)value; unsigned short bits; memcpy(&bits, &half, 2); return bits; }
};
STUB_HALF(__half, __half2, StubFp16)
inline __half __float2half(float x) { return __half(x); }
inline __half __float2half_rn(float x) { return __half(x); }
inline float __half2float(__half x) { return (float)x; }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline float2 __half22float2(__half2 v) { return {(float)v.x, (float)v.y}; }

// A 16-bit float NAME, two of them PAIR, from and to floats as FORMAT says.
#pragma once

#define STUB_HALF_FUNCTION(NAME, PAIR, F, VALUE) \
  inline NAME h##F(NAME a) { float x = (float)a; return NAME((float)(VALUE)); } \
  inline PAIR h2##F(PAIR a) { return {h##F(a.x), h##F(a.y)}; }
#define STUB_HALF_BINARY(NAME, PAIR, F, VALUE) \
  inline NAME F(NAME a, NAME b) { float x = (float)a, y = (float)b; return NAME((float)(VALUE)); } \
  inline PAIR F##2(PAIR a, PAIR b) { return {F(a.x, b.x), F(a.y, b.y)}; }
#define STUB_HALF_ARITHMETIC(NAME, PAIR, OP) \
  inline NAME operator OP(NAME a, NAME b) { return NAME((float)a OP (float)b); } \
  inline NAME& operator OP##=(NAME& a, NAME b) { a = a OP b; return a; } \
  inline PAIR operator OP(PAIR a, PAIR b) { return {a.x OP b.x, a.y OP b.y}; }
#define STUB_HALF_COMPARE(NAME, OP) \
  inline bool operator OP(NAME a, NAME b) { return (float)a OP (float)b; }

#define STUB_HALF(NAME, PAIR, FORMAT) \
  struct __attribute__((aligned(2))) NAME { \
    unsigned short bits; \
    NAME() = default; \
    template <typename T> NAME(T value) : bits(FORMAT::down((float)value)) {} \
    operator float() const { return FORMAT::up(bits); } \
  }; \
  struct __attribute__((aligned(4))) PAIR { \
    NAME x, y; \
    PAIR() = default; \
    PAIR(NAME x, NAME y) : x(x), y(y) {} \
    explicit PAIR(float value) : x(value), y(value) {} \
    explicit PAIR(NAME value) : x(value), y(value) {} \
  }; \
  STUB_HALF_ARITHMETIC(NAME, PAIR, +) STUB_HALF_ARITHMETIC(NAME, PAIR, -) \
  STUB_HALF_ARITHMETIC(NAME, PAIR, *) STUB_HALF_ARITHMETIC(NAME, PAIR, /) \
  STUB_HALF_COMPARE(NAME, <) STUB_HALF_COMPARE(NAME, >) STUB_HALF_COMPARE(NAME, <=) STUB_HALF_COMPARE(NAME, >=) \
  STUB_HALF_COMPARE(NAME, ==) STUB_HALF_COMPARE(NAME, !=) \
  inline NAME operator-(NAME a) { return NAME(-(float)a); } \
  inline PAIR operator-(PAIR a) { return {-a.x, -a.y}; } \
  STUB_HALF_FUNCTION(NAME, PAIR, log, logf(x)) STUB_HALF_FUNCTION(NAME, PAIR, sin, sinf(x)) \
  STUB_HALF_FUNCTION(NAME, PAIR, cos, cosf(x)) STUB_HALF_FUNCTION(NAME, PAIR, sqrt, sqrtf(x)) \
  STUB_HALF_FUNCTION(NAME, PAIR, rsqrt, 1.f / sqrtf(x)) STUB_HALF_FUNCTION(NAME, PAIR, exp, expf(x)) \
  STUB_HALF_FUNCTION(NAME, PAIR, ceil, ceilf(x)) STUB_HALF_FUNCTION(NAME, PAIR, trunc, truncf(x)) \
  STUB_HALF_FUNCTION(NAME, PAIR, floor, floorf(x)) STUB_HALF_FUNCTION(NAME, PAIR, rint, rintf(x)) \
  STUB_HALF_BINARY(NAME, PAIR, __hmax, fmaxf(x, y)) STUB_HALF_BINARY(NAME, PAIR, __hmin, fminf(x, y)) \
  STUB_HALF_BINARY(NAME, PAIR, __hadd, x + y) STUB_HALF_BINARY(NAME, PAIR, __hmul, x * y) \
  inline NAME __habs(NAME a) { return NAME(fabsf((float)a)); } \
  inline PAIR __habs2(PAIR a) { return {__habs(a.x), __habs(a.y)}; } \
  inline NAME __hneg(NAME a) { return -a; } \
  inline NAME __hfma(NAME a, NAME b, NAME c) { return NAME(fmaf((float)a, (float)b, (float)c)); } \
  inline PAIR __hfma2(PAIR a, PAIR b, PAIR c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; } \
  inline bool __hisnan(NAME a) { return isnan((float)a); } \
  inline bool __hisinf(NAME a) { return isinf((float)a); }

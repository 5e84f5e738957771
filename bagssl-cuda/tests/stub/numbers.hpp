// Numbers of the types that the libraries read and write.
#pragma once
#include <cstdint>
#include <cstring>

enum class Number { F32, Bf16 };

static inline float bits_to_float(uint32_t bits) { float value; std::memcpy(&value, &bits, 4); return value; }
static inline uint32_t float_to_bits(float value) { uint32_t bits; std::memcpy(&bits, &value, 4); return bits; }

static inline float get(Number type, const void* from, int64_t index) {
  if (type == Number::F32) return static_cast<const float*>(from)[index];
  return bits_to_float((uint32_t)static_cast<const uint16_t*>(from)[index] << 16);
}

static inline void put(Number type, void* to, int64_t index, float value) {
  if (type == Number::F32) { static_cast<float*>(to)[index] = value; return; }
  uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) bits |= 0x400000u;
  else bits += 0x7fffu + (bits >> 16 & 1u);
  static_cast<uint16_t*>(to)[index] = (uint16_t)(bits >> 16);
}

// To the 10 bits of a tensor core's factor, ties to even.
static inline float tf32(float value) {
  uint32_t bits = float_to_bits(value);
  if ((bits & 0x7f800000u) == 0x7f800000u) return value;
  bits += 0xfffu + (bits >> 13 & 1u);
  return bits_to_float(bits & ~0x1fffu);
}

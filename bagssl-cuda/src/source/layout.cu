// Maps from any layout to channels last, with zeros in channels and images that are added, and back. Indices are 32 bits wide
// where the host has found that all fit (`narrow`): dividing by 64 bits takes several times as long as the copy.
struct Strides { i64 image, channel, row, column; };
struct Dims { i64 images, channels, rows, columns; };

// Where value `i` of [.., rows, columns, channels] comes from, a map of `d` at `s`; what is added comes from nowhere.
template <typename I> struct Source { I at; bool inside; };
template <typename I>
__device__ __forceinline__ Source<I> packed_from(I i, const Strides& s, const Dims& d, I channels) {
  I channel = i % channels, pixel = i / channels;
  I column = pixel % (I)d.columns, line = pixel / (I)d.columns;
  I row = line % (I)d.rows, image = line / (I)d.rows;
  I at = image * (I)s.image + channel * (I)s.channel + row * (I)s.row + column * (I)s.column;
  return {at, channel < (I)d.channels && image < (I)d.images};
}

// The same for [images, channels, rows, columns] without gaps, from channels last with `padded` channels.
template <typename I>
__device__ __forceinline__ I unpacked_from(I i, const Dims& d, I padded) {
  I column = i % (I)d.columns, rest = i / (I)d.columns;
  I row = rest % (I)d.rows; rest /= (I)d.rows;
  I channel = rest % (I)d.channels, image = rest / (I)d.channels;
  return ((image * (I)d.rows + row) * (I)d.columns + column) * padded + channel;
}

// to: [images, rows, columns, channels]; from: `d` at `s`.
template <typename I, typename From, typename To>
__device__ __forceinline__ void pack(const From* from, To* to, const Strides& s, const Dims& d, I images, I channels) {
  I count = images * (I)d.rows * (I)d.columns * channels;
  for (I i = (I)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (I)gridDim.x * blockDim.x) {
    Source<I> source = packed_from<I>(i, s, d, channels);
    put(to[i], source.inside ? value(from[source.at]) : 0.f);
  }
}

// to: [images, channels, rows, columns] without gaps; from: channels last with `padded` channels.
template <typename I, typename From, typename To>
__device__ __forceinline__ void unpack(const From* from, To* to, const Dims& d, I padded) {
  I count = (I)d.images * (I)d.channels * (I)d.rows * (I)d.columns;
  for (I i = (I)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (I)gridDim.x * blockDim.x)
    put(to[i], value(from[unpacked_from<I>(i, d, padded)]));
}

#define LAYOUT(NAME, FROM, TO) \
  extern "C" __global__ void pack_##NAME(const FROM* __restrict__ from, TO* __restrict__ to, Strides s, Dims d, i64 images, \
      i64 channels, int narrow) { \
    if (narrow) pack<u32, FROM, TO>(from, to, s, d, (u32)images, (u32)channels); \
    else pack<i64, FROM, TO>(from, to, s, d, images, channels); } \
  extern "C" __global__ void unpack_##NAME(const FROM* __restrict__ from, TO* __restrict__ to, Dims d, i64 padded, \
      int narrow) { \
    if (narrow) unpack<u32, FROM, TO>(from, to, d, (u32)padded); \
    else unpack<i64, FROM, TO>(from, to, d, padded); }
LAYOUT(bf16_bf16, bf16, bf16)
LAYOUT(f32_bf16, float, bf16)
LAYOUT(bf16_f32, bf16, float)
LAYOUT(f32_f32, float, float)

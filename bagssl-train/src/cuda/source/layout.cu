// Maps from any layout to channels last, with zeros in channels and images that are added, and back.
struct Strides { i64 image, channel, row, column; };
struct Dims { i64 images, channels, rows, columns; };

// to: [padded.images, rows, columns, padded.channels]; from: `dims` at `strides`.
template <typename From, typename To>
__device__ __forceinline__ void pack(const From* from, To* to, Strides strides, Dims dims, i64 images, i64 channels) {
  i64 count = images * dims.rows * dims.columns * channels;
  for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
    i64 channel = i % channels, pixel = i / channels;
    i64 column = pixel % dims.columns, line = pixel / dims.columns;
    i64 row = line % dims.rows, image = line / dims.rows;
    bool inside = channel < dims.channels && image < dims.images;
    i64 at = image * strides.image + channel * strides.channel + row * strides.row + column * strides.column;
    put(to[i], inside ? value(from[at]) : 0.f);
  }
}

// to: [images, channels, rows, columns] without gaps; from: channels last with `padded` channels.
template <typename From, typename To>
__device__ __forceinline__ void unpack(const From* from, To* to, Dims dims, i64 padded) {
  i64 count = dims.images * dims.channels * dims.rows * dims.columns;
  for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
    i64 column = i % dims.columns, rest = i / dims.columns;
    i64 row = rest % dims.rows; rest /= dims.rows;
    i64 channel = rest % dims.channels, image = rest / dims.channels;
    i64 at = ((image * dims.rows + row) * dims.columns + column) * padded + channel;
    put(to[i], value(from[at]));
  }
}

#define LAYOUT(NAME, FROM, TO) \
  extern "C" __global__ void pack_##NAME(const FROM* from, TO* to, Strides s, Dims d, i64 images, i64 channels) { \
    pack<FROM, TO>(from, to, s, d, images, channels); } \
  extern "C" __global__ void unpack_##NAME(const FROM* from, TO* to, Dims d, i64 padded) { \
    unpack<FROM, TO>(from, to, d, padded); }
LAYOUT(bf16_bf16, bf16, bf16)
LAYOUT(f32_bf16, float, bf16)
LAYOUT(bf16_f32, bf16, float)
LAYOUT(f32_f32, float, float)

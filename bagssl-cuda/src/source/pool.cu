// Pooling of maps [images, rows, columns, channels].
struct Pool { int rows, columns, channels, outputs_down, outputs_across; int kernel[2], stride[2], padding[2]; };

// The maximum over a window, and the tap that it is at (the first of equal ones). What is not a number is a maximum.
template <typename T>
__device__ __forceinline__ void max_pool(const T* x, T* y, unsigned char* taps, Pool p, i64 count) {
  for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
    int channel = i % p.channels; i64 rest = i / p.channels;
    int across = rest % p.outputs_across; rest /= p.outputs_across;
    int down = rest % p.outputs_down; i64 image = rest / p.outputs_down;
    float most = 0.f; int tap = -1;
    for (int a = 0; a < p.kernel[0]; a++)
      for (int b = 0; b < p.kernel[1]; b++) {
        int row = down * p.stride[0] + a - p.padding[0], column = across * p.stride[1] + b - p.padding[1];
        if (row < 0 || column < 0 || row >= p.rows || column >= p.columns) continue;
        float v = value(x[((image * p.rows + row) * p.columns + column) * p.channels + channel]);
        if (tap < 0 || v > most || (v != v && most == most)) { most = v; tap = a * p.kernel[1] + b; }
      }
    put(y[i], most);
    taps[i] = (unsigned char)tap;
  }
}

// Each pixel gathers from the windows whose maximum it was.
template <typename T>
__device__ __forceinline__ void max_pool_gradient(const T* dy, const unsigned char* taps, T* dx, Pool p, i64 count) {
  for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
    int channel = i % p.channels; i64 rest = i / p.channels;
    int column = rest % p.columns; rest /= p.columns;
    int row = rest % p.rows; i64 image = rest / p.rows;
    float sum = 0.f;
    for (int a = 0; a < p.kernel[0]; a++)
      for (int b = 0; b < p.kernel[1]; b++) {
        int down = row + p.padding[0] - a, across = column + p.padding[1] - b;
        if (down < 0 || across < 0 || down % p.stride[0] || across % p.stride[1]) continue;
        down /= p.stride[0]; across /= p.stride[1];
        if (down >= p.outputs_down || across >= p.outputs_across) continue;
        i64 at = ((image * p.outputs_down + down) * p.outputs_across + across) * p.channels + channel;
        if (taps[at] == a * p.kernel[1] + b) sum += value(dy[at]);
      }
    put(dx[i], sum);
  }
}

// [images, pixels, channels] to [images, channels].
template <typename T>
__device__ __forceinline__ void global_mean(const T* x, float* y, i64 images, int pixels, int channels) {
  for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < images * channels; i += (i64)gridDim.x * blockDim.x) {
    const T* from = x + i / channels * pixels * channels + i % channels;
    float sum = 0.f;
    for (int pixel = 0; pixel < pixels; pixel++) sum += value(from[(i64)pixel * channels]);
    y[i] = sum / (float)pixels;
  }
}

template <typename T>
__device__ __forceinline__ void global_mean_gradient(const float* dy, T* dx, i64 images, int pixels, int channels) {
  i64 count = images * pixels * channels;
  for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
    i64 image = i / channels / pixels;
    put(dx[i], dy[image * channels + i % channels] / (float)pixels);
  }
}

#define POOL(NAME, T) \
  extern "C" __global__ void max_pool_##NAME(const T* x, T* y, unsigned char* taps, Pool p, i64 count) { \
    max_pool<T>(x, y, taps, p, count); } \
  extern "C" __global__ void max_pool_gradient_##NAME(const T* dy, const unsigned char* taps, T* dx, Pool p, i64 count) { \
    max_pool_gradient<T>(dy, taps, dx, p, count); } \
  extern "C" __global__ void global_mean_##NAME(const T* x, float* y, i64 images, int pixels, int channels) { \
    global_mean<T>(x, y, images, pixels, channels); } \
  extern "C" __global__ void global_mean_gradient_##NAME(const float* dy, T* dx, i64 images, int pixels, int channels) { \
    global_mean_gradient<T>(dy, dx, images, pixels, channels); }
POOL(bf16, bf16)
POOL(f32, float)

// A convolution as a product of matrices: a row for each output pixel of the images of a part, with what its window covers as
// columns [kernel rows, kernel columns, channels]. Maps lie channels last.
struct Columns { int rows, columns, channels, outputs_down, outputs_across; int kernel[2], stride[2], padding[2]; };

// to: [images * outputs, taps * channels], with zeros where the window is outside.
extern "C" __global__ void columns_f32(const float* x, float* to, Columns c, i64 count) {
  for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
    int channel = i % c.channels; i64 rest = i / c.channels;
    int b = rest % c.kernel[1]; rest /= c.kernel[1];
    int a = rest % c.kernel[0]; rest /= c.kernel[0];
    int across = rest % c.outputs_across; rest /= c.outputs_across;
    int down = rest % c.outputs_down; i64 image = rest / c.outputs_down;
    int row = down * c.stride[0] + a - c.padding[0], column = across * c.stride[1] + b - c.padding[1];
    bool inside = row >= 0 && column >= 0 && row < c.rows && column < c.columns;
    to[i] = inside ? x[((image * c.rows + row) * c.columns + column) * c.channels + channel] : 0.f;
  }
}

// The way back: each value of dx, of which there are `count`, gathers from the windows that cover it, tap by tap.
extern "C" __global__ void columns_gradient_f32(const float* from, float* dx, Columns c, i64 count) {
  for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) {
    int channel = i % c.channels; i64 rest = i / c.channels;
    int column = rest % c.columns; rest /= c.columns;
    int row = rest % c.rows; i64 image = rest / c.rows;
    float sum = 0.f;
    for (int a = 0; a < c.kernel[0]; a++)
      for (int b = 0; b < c.kernel[1]; b++) {
        int down = row + c.padding[0] - a, across = column + c.padding[1] - b;
        if (down < 0 || across < 0 || down % c.stride[0] || across % c.stride[1]) continue;
        down /= c.stride[0]; across /= c.stride[1];
        if (down >= c.outputs_down || across >= c.outputs_across) continue;
        i64 at = (image * c.outputs_down + down) * c.outputs_across + across;
        sum += from[((at * c.kernel[0] + a) * c.kernel[1] + b) * c.channels + channel];
      }
    dx[i] = sum;
  }
}

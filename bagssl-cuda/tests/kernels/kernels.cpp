// The CUDA kernels, run on the CPU, against plain loops in double. Prints a line for each check; fails if one does.
#include "device.hpp"

#include "../../src/source/common.cu"
#include "../../src/source/layout.cu"
#include "../../src/source/columns.cu"
#include "../../src/source/norm.cu"
#include "../../src/source/pool.cu"
#include "../../src/source/rows.cu"
#include "../../src/source/step.cu"
#include "../../src/source/vectors.cu"
#include "../../src/source/cholesky.cu"

using Doubles = std::vector<double>;
static bool failed = false;

static void check(const char* name, const Doubles& got, const Doubles& expected, double bound) {
  double largest = 0, off = 0;
  for (double value : expected) largest = std::max(largest, std::fabs(value));
  for (size_t i = 0; i < expected.size(); i++) {
    double difference = std::fabs(got[i] - expected[i]);
    off = std::isnan(difference) ? INFINITY : std::max(off, difference);
  }
  double error = off / std::max(largest, 1e-300);
  bool pass = got.size() == expected.size() && error <= bound;
  failed = failed || !pass;
  std::printf("%-6s %-60s %.1e <= %.0e\n", pass ? "ok" : "FAILED", name, error, bound);
}

static void holds(const char* name, bool pass) {
  failed = failed || !pass;
  std::printf("%-6s %s\n", pass ? "ok" : "FAILED", name);
}

// Values in [-1, 1), the same for the same seed.
static Doubles numbers(u64 seed, size_t count, double offset = 0) {
  Doubles values(count);
  for (auto& value : values) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    value = offset + (double)(seed >> 40) / (1 << 23) - 1;
  }
  return values;
}

template <typename T> static std::vector<T> as(const Doubles& values) {
  std::vector<T> typed(values.size());
  for (size_t i = 0; i < values.size(); i++) put(typed[i], (float)values[i]);
  return typed;
}
template <typename T> static Doubles back(const std::vector<T>& values) {
  Doubles doubles;
  for (const T& one : values) doubles.push_back(value(one));
  return doubles;
}
// What a type makes of values.
template <typename T> static Doubles rounded(const Doubles& values) { return back(as<T>(values)); }

struct Tiles { int together, width, lines, across; };
static Tiles tiles(int channels, int most) {
  int together = channels % most == 0 ? most : 1, groups = channels / together, width = std::min(groups, 64);
  return {together, width, 256 / width, (groups + width - 1) / width};
}

template <typename T> struct Kernels;
template <> struct Kernels<bf16> {
  static constexpr int most = 8;
  static constexpr double bound = 1e-2;
  static constexpr const char* name = "bf16";
  static auto statistics(bool many) { return many ? norm_statistics_bf16_8 : norm_statistics_bf16_1; }
  static auto apply(bool many) { return many ? norm_apply_bf16_8 : norm_apply_bf16_1; }
  static auto sums(bool many) { return many ? norm_sums_bf16_8 : norm_sums_bf16_1; }
  static auto gradient(bool many) { return many ? norm_gradient_bf16_8 : norm_gradient_bf16_1; }
  static auto finish(bool many) { return many ? finish_bf16_8 : finish_bf16_1; }
};
template <> struct Kernels<float> {
  static constexpr int most = 4;
  static constexpr double bound = 1e-5;
  static constexpr const char* name = "f32";
  static auto statistics(bool many) { return many ? norm_statistics_f32_4 : norm_statistics_f32_1; }
  static auto apply(bool many) { return many ? norm_apply_f32_4 : norm_apply_f32_1; }
  static auto sums(bool many) { return many ? norm_sums_f32_4 : norm_sums_f32_1; }
  static auto gradient(bool many) { return many ? norm_gradient_f32_4 : norm_gradient_f32_1; }
  static auto finish(bool many) { return many ? finish_f32_4 : finish_f32_1; }
};

// A batch norm over [rows, channels] and its gradients, in several blocks.
template <typename T> static void norm(int rows, int channels, bool has_residual, bool relu, double offset) {
  using K = Kernels<T>;
  char name[128];
  auto named = [&](const char* part) {
    std::snprintf(name, sizeof name, "norm%s, %s, [%d, %d], residual %d, relu %d, mean %g", part, K::name, rows,
        channels, has_residual, relu, offset);
    return name;
  };
  size_t count = (size_t)rows * channels;
  Doubles x = rounded<T>(numbers(1, count, offset)), r = rounded<T>(numbers(2, count)), g = rounded<T>(numbers(3, count));
  Doubles scale = rounded<float>(numbers(4, channels)), shift = rounded<float>(numbers(5, channels));
  const double epsilon = 1e-5;
  Doubles mean(channels), variance(channels), y(count), masked(count), dx(count), dscale(channels), dshift(channels);
  for (int c = 0; c < channels; c++) {
    for (int i = 0; i < rows; i++) mean[c] += x[(size_t)i * channels + c] / rows;
    for (int i = 0; i < rows; i++) variance[c] += std::pow(x[(size_t)i * channels + c] - mean[c], 2) / rows;
    double deviation = std::sqrt(variance[c] + epsilon);
    for (int i = 0; i < rows; i++) {
      size_t at = (size_t)i * channels + c;
      double normed = (x[at] - mean[c]) / deviation;
      double sum = normed * scale[c] + shift[c] + (has_residual ? r[at] : 0);
      y[at] = relu ? std::max(sum, 0.0) : sum;
      masked[at] = relu && sum <= 0 ? 0 : g[at];
      dshift[c] += masked[at];
      dscale[c] += masked[at] * normed;
    }
    for (int i = 0; i < rows; i++) {
      size_t at = (size_t)i * channels + c;
      double normed = (x[at] - mean[c]) / deviation;
      dx[at] = scale[c] / deviation * (masked[at] - dshift[c] / rows - normed * dscale[c] / rows);
    }
  }
  Tiles t = tiles(channels, K::most);
  bool many = t.together > 1;
  int down = std::max(1, std::min(5, rows / t.lines)), block = t.width * t.lines;
  auto xs = as<T>(x), rs = as<T>(r), gs = as<T>(g);
  auto scales = as<float>(scale), shifts = as<float>(shift);
  std::vector<T> ys(count), dxs(count), drs(count);
  std::vector<float> means(channels), variances(channels), dscales(channels), dshifts(channels);
  std::vector<float> parts((size_t)down * 3 * channels, NAN);
  unsigned columns = (channels + 31) / 32;
  launch(K::statistics(many), down, t.across, block, xs.data(), parts.data(), rows, channels, t.width);
  launch(norm_merge, columns, 1, 1024, parts.data(), down, channels, means.data(), variances.data());
  const T* residual = has_residual ? rs.data() : nullptr;
  launch(K::apply(many), down, t.across, block, xs.data(), residual, ys.data(), means.data(), variances.data(),
      scales.data(), shifts.data(), epsilon, rows, channels, t.width, relu);
  // A mean of 100 has an ulp of 8e-6: what is left of it after the subtraction is that far off.
  double bound = std::max(K::bound, offset > 0 ? 1e-4 : 0.0);
  check(named(", mean"), back(means), mean, 1e-6);
  check(named(", variance"), back(variances), variance, 1e-5);
  check(named(""), back(ys), y, bound);
  std::fill(parts.begin(), parts.end(), NAN);
  int mask = !relu ? 0 : has_residual ? 2 : 1;
  launch(K::sums(many), down, t.across, block, gs.data(), xs.data(), mask == 2 ? ys.data() : nullptr, means.data(),
      variances.data(), scales.data(), shifts.data(), epsilon, parts.data(), rows, channels, t.width, mask);
  launch(norm_sums_merge, columns, 1, 1024, parts.data(), down, channels, dshifts.data(), dscales.data());
  auto gradient = [&](float share) {
    launch(K::gradient(many), down, t.across, block, gs.data(), xs.data(), mask == 2 ? ys.data() : nullptr, means.data(),
        variances.data(), scales.data(), shifts.data(), epsilon, dshifts.data(), dscales.data(), share, dxs.data(),
        has_residual ? drs.data() : nullptr, rows, channels, t.width, mask);
  };
  gradient(1.f / rows);
  check(named(", scale"), back(dscales), dscale, 1e-4);
  check(named(", shift"), back(dshifts), dshift, 1e-4);
  check(named(", input"), back(dxs), dx, bound);
  if (has_residual) check(named(", residual"), back(drs), masked, 0);
  // Three workers with the same rows: the sums are three times as large, and over three times as many.
  for (int c = 0; c < channels; c++) { dscales[c] *= 3; dshifts[c] *= 3; }
  std::fill(dxs.begin(), dxs.end(), T{});
  gradient(1.f / (3.f * rows));
  check(named(", input from shared sums"), back(dxs), dx, bound);
}

template <typename T> static void finishing(int rows, int channels, bool has_bias, bool has_residual, bool relu) {
  using K = Kernels<T>;
  size_t count = (size_t)rows * channels;
  Doubles x = rounded<T>(numbers(1, count)), r = rounded<T>(numbers(2, count)), bias = rounded<float>(numbers(3, channels));
  Doubles y(count);
  for (size_t i = 0; i < count; i++) {
    double sum = x[i] + (has_bias ? bias[i % channels] : 0) + (has_residual ? r[i] : 0);
    y[i] = relu ? std::max(sum, 0.0) : sum;
  }
  Tiles t = tiles(channels, K::most);
  auto xs = as<T>(x), rs = as<T>(r);
  auto biases = as<float>(bias);
  std::vector<T> ys(count);
  launch(K::finish(t.together > 1), 3, t.across, t.width * t.lines, xs.data(), has_bias ? biases.data() : nullptr,
      has_residual ? rs.data() : nullptr, ys.data(), rows, channels, t.width, relu);
  check("bias, residual, relu", back(ys), y, K::bound);
}

// A map [2, 3, 5, 7] at strides with gaps, to channels last with 4 images and 8 channels, and back.
static void layout() {
  Dims dims = {2, 3, 5, 7};
  Strides strides = {200, 60, 9, 1};
  Doubles from = numbers(1, 400), to(4 * 5 * 7 * 8), again;
  for (int n = 0; n < 2; n++)
    for (int c = 0; c < 3; c++)
      for (int h = 0; h < 5; h++)
        for (int w = 0; w < 7; w++) {
          double value = rounded<bf16>({from[n * 200 + c * 60 + h * 9 + w]})[0];
          to[((n * 5 + h) * 7 + w) * 8 + c] = value;
          again.push_back(value);
        }
  auto source = as<float>(from);
  for (int narrow : {0, 1}) {
    std::vector<bf16> packed(to.size());
    launch(pack_f32_bf16, 3, 1, 64, source.data(), packed.data(), strides, dims, 4, 8, narrow);
    check(narrow ? "pack, 32 bits" : "pack", back(packed), to, 0);
    std::vector<float> unpacked(again.size());
    launch(unpack_bf16_f32, 2, 1, 64, packed.data(), unpacked.data(), dims, 8, narrow);
    check(narrow ? "unpack, 32 bits" : "unpack", back(unpacked), again, 0);
  }
}

// [2, 9, 7, 5] channels last, windows of 3 x 2 with stride 2, 1 and padding 1, 0.
static void pooling() {
  const int N = 2, H = 9, W = 7, C = 5, Y = 5, X = 6;
  Pool p = {H, W, C, Y, X, {3, 2}, {2, 1}, {1, 0}};
  // Few different values, so that equal ones meet.
  Doubles x = numbers(1, N * H * W * C), g = rounded<bf16>(numbers(2, N * Y * X * C)), y(g.size()), dx(x.size());
  for (auto& value : x) value = std::round(value * 4) / 4;
  for (int n = 0; n < N; n++)
    for (int c = 0; c < C; c++)
      for (int i = 0; i < Y; i++)
        for (int j = 0; j < X; j++) {
          int best = -1, out = ((n * Y + i) * X + j) * C + c;
          for (int a = 0; a < 3; a++)
            for (int b = 0; b < 2; b++) {
              int row = 2 * i + a - 1, column = j + b, at = ((n * H + row) * W + column) * C + c;
              if (row < 0 || row >= H || column >= W) continue;
              if (best < 0 || x[at] > x[best]) best = at;
            }
          y[out] = x[best];
          dx[best] += g[out];
        }
  auto xs = as<bf16>(x), gs = as<bf16>(g);
  std::vector<bf16> ys(y.size()), dxs(x.size());
  std::vector<unsigned char> taps(y.size());
  launch(max_pool_bf16, 2, 1, 128, xs.data(), ys.data(), taps.data(), p, (i64)y.size());
  check("max pool", back(ys), y, 0);
  launch(max_pool_gradient_bf16, 2, 1, 128, gs.data(), taps.data(), dxs.data(), p, (i64)x.size());
  check("max pool, input", back(dxs), dx, 1e-2);

  Doubles means(N * C), shares(x.size()), dm = rounded<float>(numbers(3, N * C));
  for (size_t i = 0; i < x.size(); i++) {
    size_t at = i / (H * W * C) * C + i % C;
    means[at] += x[i] / (H * W);
    shares[i] = dm[at] / (H * W);
  }
  auto dms = as<float>(dm);
  std::vector<float> got(N * C);
  launch(global_mean_bf16, 1, 1, 32, xs.data(), got.data(), (i64)N, H * W, C);
  check("global mean", back(got), means, 1e-5);
  launch(global_mean_gradient_bf16, 2, 1, 64, dms.data(), dxs.data(), (i64)N, H * W, C);
  check("global mean, input", back(dxs), shares, 1e-2);

  Doubles rows = rounded<float>(numbers(4, 50 * 37)), sums(37);
  for (size_t i = 0; i < rows.size(); i++) sums[i % 37] += rows[i];
  auto typed = as<float>(rows);
  std::vector<float> columns(37);
  launch(sum_columns, 2, 1, 1024, typed.data(), columns.data(), (i64)50, 37);
  check("sum of columns", back(columns), sums, 1e-5);
}

// The three passes of a convolution as products of matrices, against a loop over its taps.
static void convolution(Columns c, int N, int O) {
  int H = c.rows, W = c.columns, C = c.channels, Y = c.outputs_down, X = c.outputs_across, taps = c.kernel[0] * c.kernel[1];
  int rows = N * Y * X, width = taps * C;
  Doubles x = rounded<float>(numbers(1, N * H * W * C)), w = rounded<float>(numbers(2, O * width)), g = rounded<float>(numbers(3, rows * O));
  Doubles y(rows * O), dx(x.size()), dw(w.size());
  for (int row = 0; row < rows; row++)
    for (int a = 0; a < c.kernel[0]; a++)
      for (int b = 0; b < c.kernel[1]; b++) {
        int i = row / X % Y * c.stride[0] + a - c.padding[0], j = row % X * c.stride[1] + b - c.padding[1];
        if (i < 0 || j < 0 || i >= H || j >= W) continue;
        for (int o = 0; o < O; o++)
          for (int k = 0; k < C; k++) {
            int from = ((row / X / Y * H + i) * W + j) * C + k, tap = (o * taps + a * c.kernel[1] + b) * C + k, to = row * O + o;
            y[to] += x[from] * w[tap]; dx[from] += g[to] * w[tap]; dw[tap] += g[to] * x[from];
          }
      }
  auto xs = as<float>(x);
  std::vector<float> matrix(rows * width, NAN), dxs(x.size(), NAN);
  launch(columns_f32, 3, 1, 64, xs.data(), matrix.data(), c, (i64)matrix.size());
  Doubles got_y(y.size()), got_dw(dw.size());
  std::vector<float> back_rows(matrix.size());
  for (int row = 0; row < rows; row++)
    for (int at = 0; at < width; at++) {
      double sum = 0;
      for (int o = 0; o < O; o++) {
        got_y[row * O + o] += matrix[row * width + at] * w[o * width + at];
        got_dw[o * width + at] += matrix[row * width + at] * g[row * O + o];
        sum += g[row * O + o] * w[o * width + at];
      }
      back_rows[row * width + at] = (float)sum;
    }
  launch(columns_gradient_f32, 3, 1, 64, back_rows.data(), dxs.data(), c, (i64)dxs.size());
  check("convolution by columns", got_y, y, 1e-6);
  check("convolution by columns, weight", got_dw, dw, 1e-6);
  check("convolution by columns, input", back(dxs), dx, 1e-6);
}

// Steps of two parameters: one that decays, and that LARS adapts, and one that does neither.
static void steps() {
  const size_t lengths[2] = {1000, 3};
  const unsigned blocks = 4;
  for (int kind = 0; kind < 6; kind++) {
    bool adamw = kind == 2, lars = kind >= 3, plain = kind == 4, zero = kind == 5;
    Items items = {};
    Doubles p[2], g[2], first[2], second[2];
    std::vector<float> in[2][4], out[2][3];
    for (int i = 0; i < 2; i++) {
      size_t n = lengths[i];
      p[i] = zero ? Doubles(n) : rounded<float>(numbers(1 + i, n));
      g[i] = rounded<float>(numbers(3 + i, n));
      first[i] = rounded<float>(numbers(5 + i, n));
      second[i] = rounded<float>(numbers(7 + i, n, 1));
      in[i][0] = as<float>(p[i]); in[i][1] = as<float>(g[i]); in[i][2] = as<float>(first[i]); in[i][3] = as<float>(second[i]);
      for (auto& one : out[i]) one.assign(n, NAN);
      // The second parameter has no states yet.
      bool has = i == 0;
      if (!has) { first[i].assign(n, 0); second[i].assign(n, 0); }
      items.at[i] = {in[i][0].data(), in[i][1].data(), has ? in[i][2].data() : nullptr, has ? in[i][3].data() : nullptr,
          out[i][0].data(), out[i][1].data(), out[i][2].data(), (i64)n, adamw ? 0.99f : 0.01f, 0};
      items.at[i].adapt = lars && i == 0;
      if (i == 1) items.at[i].decay = adamw ? 1.f : 0.f;
    }
    Descent d = {0.1f, 0.9f, kind != 0};
    AdamW a = {0.9f, 0.99f, 0.1f, 0.01f, 2.f, 1e-3f, 0.05f};
    Lars l = {0.02f, 0.1f, plain};
    std::vector<float> norms(2 * blocks * 2, NAN);
    if (adamw) launch(step_adamw, blocks, 2, 64, items, a);
    else if (!lars) launch(step_sgd, blocks, 2, 64, items, d);
    else {
      launch(step_norms, blocks, 2, 64, items, norms.data(), (int)plain);
      launch(step_lars, blocks, 2, 64, items, d, l, norms.data(), (int)blocks);
    }
    const char* names[] = {"sgd", "sgd, nesterov", "adamw", "lars, clipped", "lars, plain", "lars, clipped, zeros"};
    for (int i = 0; i < 2; i++) {
      size_t n = lengths[i];
      Doubles p2(n), f2(n), s2(n);
      double decay = items.at[i].decay, pp = 0, gg = 0;
      for (size_t k = 0; k < n; k++) {
        double decayed = g[i][k] + (plain ? decay * p[i][k] : 0);
        pp += p[i][k] * p[i][k]; gg += decayed * decayed;
      }
      double pn = std::sqrt(pp), gn = std::sqrt(gg);
      double ratio = plain ? 0.02 * pn / gn : std::min(pn / (gn + pn * decay + 1e-8) * (0.02 / 0.1), 1.0);
      for (size_t k = 0; k < n; k++) {
        if (adamw) {
          f2[k] = first[i][k] * 0.9 + g[i][k] * 0.1;
          s2[k] = second[i][k] * 0.99 + g[i][k] * g[i][k] * 0.01;
          p2[k] = p[i][k] * decay - f2[k] / (std::sqrt(s2[k] * 2) + 1e-3) * 0.05;
          continue;
        }
        double gradient = g[i][k] + p[i][k] * decay;
        if (items.at[i].adapt) gradient = zero ? g[i][k] : gradient * ratio;
        f2[k] = first[i][k] * 0.9 + gradient;
        p2[k] = p[i][k] - (d.nesterov ? gradient + f2[k] * 0.9 : f2[k]) * 0.1;
      }
      check(names[kind], back(out[i][0]), p2, 1e-5);
      check(names[kind], back(out[i][1]), f2, 1e-5);
      if (adamw) check(names[kind], back(out[i][2]), s2, 1e-5);
    }
  }
}

// X and the logarithm of the determinant, in the launches of `cuda/matrices.rs`.
static std::pair<std::vector<float>, std::vector<float>> factored(const std::vector<float>& matrices, int count, int side) {
  std::vector<float> factors(matrices.size(), NAN), roots(matrices.size(), NAN), logs(count, NAN);
  int tiles = (side + TILE - 1) / TILE;
  auto subtract = [&](int step) {
    launch(cholesky_subtract, tiles * (tiles - step - 1), count, 256, matrices.data(), factors.data(), roots.data(), side, step);
  };
  subtract(-1);
  for (int step = 0; step < tiles; step++) {
    launch(cholesky_scale, tiles, count, 256, factors.data(), roots.data(), side, step);
    if (step + 1 < tiles) subtract(step);
  }
  launch(cholesky_logarithms, count, 1, 256, roots.data(), logs.data(), side);
  return {roots, logs};
}

// Two matrices B B^T + I, factored as a whole: the inverse X^T X, and the logarithm of the determinant.
static void inverses(int side) {
  const int count = 2;
  size_t size = (size_t)side * side;
  Doubles matrices(count * size), expected(count * size), logarithms(count);
  for (int m = 0; m < count; m++) {
    Doubles b = numbers(1 + m, size);
    double* at = &matrices[m * size];
    for (int i = 0; i < side; i++)
      for (int j = 0; j < side; j++) {
        double sum = i == j;
        for (int k = 0; k < side; k++) sum += b[i * side + k] * b[j * side + k];
        at[i * side + j] = (float)sum;
      }
    // Gauss and Jordan, without pivots.
    Doubles left(at, at + size);
    double* right = &expected[m * size];
    for (int i = 0; i < side; i++) right[i * side + i] = 1;
    for (int k = 0; k < side; k++) {
      double pivot = left[k * side + k];
      logarithms[m] += std::log(pivot);
      for (int j = 0; j < side; j++) { left[k * side + j] /= pivot; right[k * side + j] /= pivot; }
      for (int i = 0; i < side; i++) {
        double f = left[i * side + k];
        if (i != k) for (int j = 0; j < side; j++) {
          left[i * side + j] -= f * left[k * side + j];
          right[i * side + j] -= f * right[k * side + j];
        }
      }
    }
  }
  auto typed = as<float>(matrices);
  // Of a symmetric matrix the upper half is not read.
  for (int m = 0; m < count; m++)
    for (int i = 0; i < side; i++) for (int j = i + 1; j < side; j++) typed[m * size + i * side + j] = NAN;
  auto [roots, logs] = factored(typed, count, side);
  Doubles got(count * size);
  for (int m = 0; m < count; m++)
    for (int i = 0; i < side; i++)
      for (int j = 0; j < side; j++)
        for (int k = 0; k < side; k++) got[m * size + i * side + j] += (double)roots[m * size + k * side + i] * roots[m * size + k * side + j];
  char name[64];
  std::snprintf(name, sizeof name, "inverse of %d x %d", side, side);
  check(name, got, expected, 1e-4);
  std::snprintf(name, sizeof name, "determinant of %d x %d", side, side);
  check(name, back(logs), logarithms, 1e-5);
}

// Of a matrix that is not positive definite nothing is a number, whatever its pivot: X^T X has the last row of X in each of
// its values. A matrix beside it is what it would be alone.
static void indefinite(int side, int at, float pivot) {
  size_t size = (size_t)side * side;
  std::vector<float> matrices(2 * size);
  for (int i = 0; i < side; i++) matrices[i * side + i] = matrices[size + i * side + i] = 4;
  matrices[at * side + at] = pivot;
  auto [roots, logs] = factored(matrices, 2, side);
  bool pass = std::isnan(logs[0]) && std::fabs(logs[1] - side * std::log(4.0)) < 1e-4 * side;
  for (int i = 0; i < side; i++) {
    // Without neighbors the other rows are numbers; from the pivot on there are none in its column.
    pass = pass && std::isnan(roots[i * side + at]) == (i >= at);
    for (int j = 0; j < side; j++) pass = pass && roots[size + i * side + j] == (i == j ? 0.5f : 0.f);
  }
  failed = failed || !pass;
  std::printf("%-6s pivot %g at %d of %d\n", pass ? "ok" : "FAILED", pivot, at, side);
}

// [[1, 2], [2, 1]]: nothing of its inverse is a number.
static void indefinite_by_hand() {
  auto [roots, logs] = factored({1, 2, 2, 1}, 1, 2);
  bool pass = std::isnan(logs[0]) && std::isnan(roots[2]) && std::isnan(roots[3]);
  failed = failed || !pass;
  std::printf("%-6s indefinite by hand\n", pass ? "ok" : "FAILED");
}

#include "vectors.hpp"

int main() {
  for (int side : {1, 5, 31, 32, 33, 64, 65, 130, 257}) inverses(side);
  for (float pivot : {-3.f, 0.f, NAN}) {
    indefinite(3, 1, pivot);
    indefinite(130, 70, pivot);
  }
  indefinite_by_hand();
  layout();
  norm<float>(300, 24, true, true, 0);
  norm<float>(301, 6, false, true, 0);
  norm<float>(200, 12, false, false, 100);
  norm<float>(7, 260, false, true, 0);
  norm<bf16>(300, 64, true, true, 0);
  norm<bf16>(97, 5, true, true, 0);
  norm<bf16>(1031, 1, false, true, 100);
  norm<bf16>(37, 8, true, false, 0);
  norm<float>(513, 1, true, true, 0);
  norm<bf16>(64, 520, false, true, 0);
  norm<float>(1, 8, false, false, 0);
  finishing<bf16>(33, 24, true, true, true);
  finishing<bf16>(33, 3, true, false, true);
  finishing<float>(5, 300, true, false, false);
  // The sum of two maps.
  finishing<bf16>(33, 24, false, true, false);
  finishing<float>(5, 6, false, true, false);
  pooling();
  convolution({9, 7, 4, 5, 6, {3, 2}, {2, 1}, {1, 0}}, 3, 8);
  convolution({5, 8, 3, 3, 4, {1, 1}, {2, 2}, {0, 0}}, 2, 5);
  steps();
  vectors();
  std::printf(failed ? "some failed\n" : "all pass\n");
  return failed;
}

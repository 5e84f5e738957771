// Rounding, indices of layouts, and kernels that go over many vectors.

// Every bf16 that is finite, what lies between it and the next one away from 0, and what is not finite.
static void rounding() {
  bool pass = true;
  for (u32 upper = 0; upper < 1u << 16; upper++) {
    bool finite = (upper & 0x7f80) != 0x7f80;
    for (u32 lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      float x = __uint_as_float(upper << 16 | lower);
      bf16 got;
      put(got, x);
      if (!finite) { pass = pass && (std::isnan(x) ? std::isnan(value(got)) : value(got) == x); continue; }
      bool up = lower > 0x8000 || (lower == 0x8000 && upper % 2);
      pass = pass && got.bits == (u16)(upper + up);
      u32 both = rounded(x, 1.5f);
      pass = pass && both == (0x3fc0u << 16 | got.bits);
    }
  }
  float from[8] = {1, -2, 3, -4, 5, -6, 7, -8};
  bf16 to[16] = {};
  store<bf16, 8>(to, from, 1);
  Group<bf16, 8> group = load<bf16, 8>(to, 1);
  for (int j = 0; j < 8; j++) pass = pass && to[j].bits == 0 && value(to[8 + j]) == from[j] && group.get(j) == from[j];
  holds("rounding to bf16", pass);
}

// Places that are known, in maps of up to 2^40 values, and in 32 bits at their end.
static void indices() {
  bool pass = true;
  Dims wide = {1 << 20, 5, 1 << 9, 1 << 10};
  const i64 channels = 8;
  Strides strides = {3ll << 33, 1ll << 34, 1 << 11, 2};
  for (i64 image : {0ll, 77ll, (1ll << 20) - 1, 1ll << 20})
    for (i64 row : {0ll, 3ll, 511ll})
      for (i64 column : {0ll, 1023ll})
        for (i64 channel : {0ll, 4ll, 5ll, 7ll}) {
          i64 i = ((image * wide.rows + row) * wide.columns + column) * channels + channel;
          Source<i64> source = packed_from<i64>(i, strides, wide, channels);
          pass = pass && source.inside == (image < wide.images && channel < wide.channels);
          pass = pass && source.at == image * (3ll << 33) + channel * (1ll << 34) + row * (1 << 11) + column * 2;
          if (channel >= 5) continue;
          i64 back = ((image * 5 + channel) * wide.rows + row) * wide.columns + column;
          pass = pass && unpacked_from<i64>(back, wide, channels) == i;
        }
  // [2^14, 3, 127, 129] filled up to 8 channels: 2147 M values, less than 2^31.
  Dims most = {1 << 14, 3, 127, 129};
  Strides plain = {3 * 127 * 129, 127 * 129, 129, 1};
  u32 count = (1u << 14) * 127 * 129 * 8;
  pass = pass && count < 1u << 31;
  for (u32 i : {0u, 12345678u, count - 7, count - 6, count - 1}) {
    Source<u32> narrow = packed_from<u32>(i, plain, most, 8);
    Source<i64> source = packed_from<i64>(i, plain, most, 8);
    pass = pass && narrow.inside == source.inside && (!narrow.inside || narrow.at == source.at);
  }
  for (u32 i : {0u, 12345678u, (1u << 14) * 3 * 127 * 129 - 1})
    pass = pass && unpacked_from<u32>(i, most, 8) == unpacked_from<i64>(i, most, 8);
  // Chunks beyond 32 bits, and vectors without values between others.
  Vectors vectors = {};
  i64 firsts[] = {0, 1ll << 33, (1ll << 33) + 1, (1ll << 33) + 1, (1ll << 34)};
  for (int i = 0; i < 5; i++) vectors.at[i].first = firsts[i];
  pass = pass && vector_of(vectors, 5, 0) == 0 && vector_of(vectors, 5, (1ll << 33) - 1) == 0;
  pass = pass && vector_of(vectors, 5, 1ll << 33) == 1 && vector_of(vectors, 5, (1ll << 33) + 1) == 3;
  pass = pass && vector_of(vectors, 5, 1ll << 40) == 4 && vector_of(vectors, 1, 5) == 0;
  holds("indices beyond 32 bits", pass);
}

static void squared_lengths(const std::vector<size_t>& lengths) {
  Vectors vectors = {};
  std::vector<std::vector<float>> values;
  Doubles expected;
  i64 chunks = 0;
  for (size_t i = 0; i < lengths.size(); i++) {
    Doubles own = rounded<float>(numbers(i + 1, lengths[i]));
    double square = 0;
    for (double value : own) square += value * value;
    expected.push_back(square);
    values.push_back(as<float>(own));
    vectors.at[i] = {values.back().data(), (i64)lengths[i], chunks};
    chunks += (lengths[i] + CHUNK - 1) / CHUNK;
  }
  std::vector<float> parts(chunks, NAN), first(lengths.size(), NAN), again(lengths.size(), NAN);
  for (auto* squares : {&first, &again}) {
    if (chunks) launch(vectors_squares, chunks, 1, 256, vectors, (int)lengths.size(), parts.data());
    launch(vectors_squares_merge, lengths.size(), 1, 256, vectors, parts.data(), squares->data());
  }
  check("squared lengths", back(first), expected, 1e-6);
  holds("squared lengths, the same again", first == again);
}

static void joined() {
  const size_t lengths[] = {1, 300, 0, 37};
  Vectors vectors = {};
  std::vector<std::vector<float>> values;
  std::vector<float> expected;
  for (int i = 0; i < 4; i++) {
    values.push_back(as<float>(numbers(1 + i, lengths[i])));
    vectors.at[i] = {values[i].data(), (i64)lengths[i], (i64)expected.size()};
    expected.insert(expected.end(), values[i].begin(), values[i].end());
  }
  std::vector<float> got(expected.size() + 1, 5.f);
  expected.push_back(5.f);
  launch(vectors_join, 2, 4, 64, vectors, got.data());
  holds("joined vectors, and nothing behind them", got == expected);
}

static void running_statistics() {
  const size_t lengths[] = {1, 37, 256, 1000};
  const float factors[] = {1.f, 1.25f, 1.f, 1.001f};
  Runnings all = {};
  std::vector<float> values[4], batches[4], to[4];
  for (int i = 0; i < 4; i++) {
    values[i] = as<float>(numbers(1 + i, lengths[i]));
    batches[i] = as<float>(numbers(11 + i, lengths[i]));
    to[i].assign(lengths[i] + 1, 5.f);
    all.at[i] = {values[i].data(), batches[i].data(), to[i].data(), (i64)lengths[i], factors[i]};
  }
  launch(vectors_running, 2, 4, 64, all, 0.9f, 0.1f);
  for (int i = 0; i < 4; i++) {
    Doubles expected;
    for (size_t k = 0; k < lengths[i]; k++) expected.push_back(values[i][k] * 0.9 + (double)batches[i][k] * factors[i] * 0.1);
    holds("running statistics, the end", to[i].back() == 5.f);
    to[i].pop_back();
    check("running statistics", back(to[i]), expected, 1e-6);
  }
}

// The mean cosine over all pairs of patches of different images.
static void likeness(int images, int patches, int dim, double offset) {
  int rows = images * patches;
  Doubles x = rounded<float>(numbers(1, (size_t)rows * dim, offset)), lengths(rows);
  // One row of zeros.
  if (rows > 2) std::fill(&x[2 * dim], &x[3 * dim], 0.0);
  for (int i = 0; i < rows; i++) {
    for (int k = 0; k < dim; k++) lengths[i] += x[i * dim + k] * x[i * dim + k];
    lengths[i] = std::max(std::sqrt(lengths[i]), 1e-12);
  }
  double sum = 0, count = 0;
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < rows; j++) {
      if (i / patches == j / patches) continue;
      count++;
      for (int k = 0; k < dim; k++) sum += x[i * dim + k] * x[j * dim + k] / lengths[i] / lengths[j];
    }
  auto typed = as<float>(x);
  std::vector<float> inverses(rows, NAN), got(1, NAN);
  std::vector<double> pairs(dim, NAN);
  auto run = [&] {
    launch(similarity_lengths, (rows + 7) / 8, 1, 256, typed.data(), inverses.data(), rows, dim);
    launch(similarity_columns, (dim + 31) / 32, 1, 1024, typed.data(), inverses.data(), pairs.data(), images, patches, dim);
    launch(similarity_mean, 1, 1, 32, pairs.data(), got.data(), dim, std::max(count, 1.0));
  };
  run();
  bool pass = std::fabs(got[0] - sum / std::max(count, 1.0)) < 1e-6;
  typed[0] = NAN;
  run();
  char name[64];
  std::snprintf(name, sizeof name, "similarity of [%d, %d, %d], mean %g", images, patches, dim, offset);
  holds(name, pass && std::isnan(got[0]));
}

static void vectors() {
  rounding();
  indices();
  squared_lengths({1, 3, CHUNK, 0, CHUNK + 1, 5, 2 * CHUNK + 1027, 0});
  squared_lengths({0});
  squared_lengths(std::vector<size_t>(VECTORS, 7));
  joined();
  running_statistics();
  likeness(5, 3, 37, 0);
  likeness(40, 1, 64, 0.5);
  likeness(1, 4, 1, 0);
  likeness(9, 2, 130, 3);
}

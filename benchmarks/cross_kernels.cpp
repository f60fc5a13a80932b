// The same random calls on every level of the processor that this is compiled for (benchmarks/cross_kernels.py): a digest of
// all that they write, the same on every level and every family of processors, or exit code 1.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "kernels.h"

namespace {

struct Random {
  uint64_t state;
  uint32_t next() {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state >> 33);
  }
  int32_t below(int32_t n) { return static_cast<int32_t>(next() % static_cast<uint32_t>(n)); }
};

struct Memory {  // aligned arrays that live as long as the case
  std::vector<void*> all;
  ~Memory() {
    for (void* p : all) std::free(p);
  }
  template <typename T>
  T* make(int64_t n) {
    void* p = std::aligned_alloc(64, static_cast<size_t>((n * static_cast<int64_t>(sizeof(T)) + 191) / 64 * 64));
    std::memset(p, 0, static_cast<size_t>((n * static_cast<int64_t>(sizeof(T)) + 191) / 64 * 64));
    all.push_back(p);
    return static_cast<T*>(p);
  }
};

uint64_t digest(const void* data, int64_t bytes) {
  uint64_t h = 1469598103934665603u;
  for (int64_t i = 0; i < bytes; ++i) h = (h ^ static_cast<const uint8_t*>(data)[i]) * 1099511628211u;
  return h;
}

const uint8_t* codes(Random& r, Memory& m, int64_t n) {
  uint8_t* x = m.make<uint8_t>(n);
  const bool extremes = r.below(3) == 0;
  for (int64_t i = 0; i < n; ++i) x[i] = extremes ? (r.below(2) ? 255 : 0) : static_cast<uint8_t>(r.below(256));
  return x;
}

fb_rescale rescale(Random& r, Memory& m, int32_t channels, float size) {
  fb_rescale s{};
  float* factor = m.make<float>(channels);
  int32_t *mantissa = m.make<int32_t>(channels), *shift = m.make<int32_t>(channels);
  for (int32_t i = 0; i < channels; ++i) {
    factor[i] = size * static_cast<float>(1 + r.below(1000)) / 500.0f;
    mantissa[i] = (1 << 30) + r.below(1 << 30);
    shift[i] = -r.below(12);
  }
  s.factor = factor;
  s.mantissa = mantissa;
  s.shift = shift;
  s.per_channel = channels > 1;
  s.kind = r.below(5);
  s.zero = r.below(256);
  s.high = 255;
  s.type = s.kind == FB_SUMS ? FB_S32 : FB_U8;
  return s;
}

uint64_t run(const void* call, const void* y, int64_t bytes) {
  Memory m;
  const int64_t scratch = fb_scratch(call, 2);
  const void* calls[] = {call};
  fb_batch batch{calls, 1, scratch > 0 ? m.make<uint8_t>(scratch) : nullptr, scratch, 0, 2, 0};
  if (scratch < 0 || fb_run(&batch)) {
    std::fprintf(stderr, "refused: %lld\n", static_cast<long long>(scratch));
    std::exit(1);
  }
  return digest(y, bytes);
}

uint64_t conv(Random r) {
  Memory m;
  fb_conv c{};
  c.op = FB_CONV;
  c.batch = 1 + r.below(2);
  c.height = 3 + r.below(9);
  c.width = 3 + r.below(9);
  const int32_t kind = r.below(3);
  c.groups = kind == 1 ? 1 + r.below(4) : 1;
  c.channels = c.groups * (1 + r.below(40));
  c.out_channels = c.groups * (1 + r.below(50));
  if (kind == 2) c.groups = c.out_channels = c.channels;
  c.kernel_h = 1 + r.below(3);
  c.kernel_w = 1 + r.below(3);
  c.stride_h = 1 + r.below(2);
  c.stride_w = 1 + r.below(2);
  c.dilation_h = c.dilation_w = 1;
  c.top = r.below(2);
  c.left = r.below(2);
  c.x_zero = r.below(256);
  c.weight_type = r.below(4) ? FB_S8 : FB_S16;
  const int64_t weights = static_cast<int64_t>(c.out_channels) * c.kernel_h * c.kernel_w * (c.channels / c.groups);
  if (c.weight_type == FB_S8) {
    int8_t* w = m.make<int8_t>(weights);
    for (int64_t i = 0; i < weights; ++i) w[i] = static_cast<int8_t>(r.below(256) - 128);
    c.weights = w;
  } else {
    int16_t* w = m.make<int16_t>(weights);
    for (int64_t i = 0; i < weights; ++i) w[i] = static_cast<int16_t>(r.below(511) - 255);
    c.weights = w;
  }
  int32_t* bias = m.make<int32_t>(c.out_channels);
  for (int32_t i = 0; i < c.out_channels; ++i) bias[i] = r.below(10000) - 5000;
  c.bias = bias;
  c.x = codes(r, m, static_cast<int64_t>(c.batch) * c.height * c.width * c.channels);
  c.rescale = rescale(r, m, c.out_channels, 1e-3f);
  const int64_t out_h = (c.height + c.top - c.kernel_h) / c.stride_h + 1, out_w = (c.width + c.left - c.kernel_w) / c.stride_w + 1;
  const int64_t bytes = c.batch * out_h * out_w * c.out_channels * (c.rescale.type == FB_S32 ? 4 : 1);
  uint8_t* y = m.make<uint8_t>(bytes);
  c.y = y;
  const int64_t packed = fb_packed_bytes(&c);
  if (packed < 0) std::exit(1);
  if (packed > 0) {
    void* blob = m.make<uint8_t>(packed);
    if (fb_pack(&c, blob, packed)) std::exit(1);
    c.weights = blob;
    c.layout = FB_PACKED;
  }
  return run(&c, y, bytes);
}

uint64_t matmul(Random r) {
  Memory m;
  fb_matmul c{};
  c.op = FB_MATMUL;
  c.b_transposed = r.below(2);
  c.batches = 1 + r.below(3);
  c.rows = 1 + r.below(30);
  c.depth = 1 + r.below(70);
  c.columns = 1 + r.below(40);
  c.a_step = static_cast<int64_t>(c.rows) * c.depth;
  c.b_step = static_cast<int64_t>(c.columns) * c.depth;
  c.a = codes(r, m, c.batches * c.a_step);
  c.b = codes(r, m, c.batches * c.b_step);
  c.a_zero = r.below(256);
  c.b_zero = r.below(256);
  c.rescale = rescale(r, m, 1, 1e-3f);
  const int64_t bytes = static_cast<int64_t>(c.batches) * c.rows * c.columns * (c.rescale.type == FB_S32 ? 4 : 1);
  uint8_t* y = m.make<uint8_t>(bytes);
  c.y = y;
  return run(&c, y, bytes);
}

uint64_t pair(Random r) {
  Memory m;
  fb_pair c{};
  c.op = FB_PAIR;
  c.kind = r.below(FB_LOOKED_UP);
  c.axes = 1;
  c.sizes[0] = 1 + r.below(400);
  c.step_a[0] = c.step_b[0] = 1;
  c.a = codes(r, m, c.sizes[0]);
  c.b = codes(r, m, c.sizes[0]);
  c.scale_a = static_cast<float>(1 + r.below(1000)) / 997.0f;
  c.scale_b = static_cast<float>(1 + r.below(1000)) / 997.0f;
  c.scale_y = static_cast<float>(1 + r.below(1000)) / 397.0f;
  c.offset = static_cast<float>(r.below(1000)) / 7.0f - 70.0f;
  c.zero_a = r.below(256);
  c.zero_b = r.below(256);
  c.zero_y = r.below(256);
  c.high = 255;
  uint8_t* y = m.make<uint8_t>(c.sizes[0]);
  c.y = y;
  return run(&c, y, c.sizes[0]);
}

uint64_t norm(Random r) {
  Memory m;
  fb_norm c{};
  c.op = FB_NORM;
  c.length = 1 + r.below(300);
  c.rows = 1 + r.below(5);
  c.gain_rows = 1;
  float *gain = m.make<float>(c.length), *shift = m.make<float>(c.length);
  for (int32_t i = 0; i < c.length; ++i) {
    gain[i] = static_cast<float>(r.below(1000)) / 499.0f;
    shift[i] = static_cast<float>(r.below(1000)) / 499.0f - 1.0f;
  }
  c.gain = gain;
  c.shift = shift;
  c.x = codes(r, m, c.rows * c.length);
  c.epsilon = 3.0f;
  c.scale = 0.021f;
  c.zero = r.below(256);
  c.high = 255;
  uint8_t* y = m.make<uint8_t>(c.rows * c.length);
  c.y = y;
  return run(&c, y, c.rows * c.length);
}

uint64_t grouped(Random r) {
  Memory m;
  fb_grouped c{};
  c.op = FB_GROUPED;
  const int32_t widths[] = {1, 2, 4, 8};
  c.bits = widths[r.below(4)];
  c.columns = 1 + r.below(60);
  c.depth = c.group = 1 + r.below(300);
  c.rows = 1 + r.below(5);
  c.x_zero = r.below(256);
  uint8_t* w = m.make<uint8_t>(static_cast<int64_t>(c.columns) * c.depth);
  for (int64_t i = 0; i < static_cast<int64_t>(c.columns) * c.depth; ++i) w[i] = static_cast<uint8_t>(r.below(1 << c.bits));
  int8_t values[256];
  for (int8_t& v : values) v = static_cast<int8_t>(r.below(256) - 128);
  const int64_t size = fb_grouped_bytes(c.bits, c.columns, c.depth, c.group);
  void* packed = m.make<uint8_t>(size);
  if (size < 0 || fb_pack_grouped(w, values, c.bits, c.columns, c.depth, c.group, packed, size)) std::exit(1);
  c.weights = packed;
  c.x = codes(r, m, static_cast<int64_t>(c.rows) * c.depth);
  c.rescale = rescale(r, m, c.columns, 1e-3f);
  const int64_t bytes = static_cast<int64_t>(c.rows) * c.columns * (c.rescale.type == FB_S32 ? 4 : 1);
  uint8_t* y = m.make<uint8_t>(bytes);
  c.y = y;
  return run(&c, y, bytes);
}

uint64_t binary(Random r) {
  Memory m;
  fb_binary c{};
  c.op = FB_BINARY;
  c.x_bits = 1 + r.below(2);
  c.w_bits = 1 + r.below(2);
  c.x_first = r.below(3);
  c.x_low = r.below(7) - 3;
  c.x_step = 1 + r.below(3);
  c.w_low = r.below(7) - 3;
  c.w_step = 1 + r.below(3);
  c.batch = 1 + r.below(2);
  c.height = 3 + r.below(5);
  c.width = 3 + r.below(6);
  c.channels = 1 + r.below(100);
  c.columns = 1 + r.below(60);
  c.kernel_h = 1 + r.below(3);
  c.kernel_w = 1 + r.below(3);
  c.stride_h = 1 + r.below(2);
  c.stride_w = 1 + r.below(2);
  c.dilation_h = c.dilation_w = 1;
  c.top = r.below(2);
  c.right = r.below(2);
  const int64_t depth = static_cast<int64_t>(c.kernel_h) * c.kernel_w * c.channels, blocks = (c.columns + 7) / 8;
  const int64_t of_plane = (depth + 63) / 64, words = blocks * 8 * c.w_bits * of_plane;
  uint64_t* w = m.make<uint64_t>(words);
  for (int64_t i = 0; i < words; ++i) {
    const int64_t left = depth - i / 8 % of_plane * 64;  // bits behind the depth are 0
    const uint64_t bits = (static_cast<uint64_t>(r.next()) << 32) ^ (static_cast<uint64_t>(r.next()) << 5) ^ r.next();
    w[i] = left >= 64 ? bits : bits & ((UINT64_C(1) << left) - 1);
  }
  c.weights = w;
  c.x = codes(r, m, static_cast<int64_t>(c.batch) * c.height * c.width * c.channels);
  int32_t* bias = m.make<int32_t>(blocks * 8);
  for (int64_t i = 0; i < blocks * 8; ++i) bias[i] = r.below(2000) - 1000;
  c.bias = bias;
  int32_t* outside = m.make<int32_t>(c.kernel_h * c.kernel_w * blocks * 8);
  for (int64_t i = 0; i < c.kernel_h * c.kernel_w * blocks * 8; ++i) outside[i] = r.below(200) - 100;
  c.outside = outside;
  c.rescale = rescale(r, m, c.columns, 0.3f);
  const int64_t high = (c.height + c.top - c.kernel_h) / c.stride_h + 1, wide = (c.width + c.right - c.kernel_w) / c.stride_w + 1;
  const int64_t bytes = c.batch * high * wide * c.columns * (c.rescale.type == FB_S32 ? 4 : 1);
  uint8_t* y = m.make<uint8_t>(bytes);
  c.y = y;
  return run(&c, y, bytes);
}

uint64_t softmax(Random r) {
  Memory m;
  fb_softmax c{};
  c.op = FB_SOFTMAX;
  c.length = 1 + r.below(300);
  c.rows = 1 + r.below(5);
  int32_t* powers = m.make<int32_t>(257);
  powers[0] = 1 << 20;
  for (int32_t i = 1; i < 256; ++i) powers[i] = static_cast<int32_t>(static_cast<int64_t>(powers[i - 1]) * (900 + r.below(100)) / 1000);
  c.powers = powers;
  c.codes = 256;
  c.x = codes(r, m, c.rows * c.length);
  c.scale = 1.0f / 256.0f;
  c.high = 255;
  uint8_t* y = m.make<uint8_t>(c.rows * c.length);
  c.y = y;
  return run(&c, y, c.rows * c.length);
}

uint64_t pool(Random r) {
  Memory m;
  fb_pool c{};
  c.op = FB_POOL;
  c.sums = r.below(2);
  c.batch = 1;
  c.height = 3 + r.below(9);
  c.width = 3 + r.below(9);
  c.channels = 1 + r.below(90);
  c.kernel_h = c.kernel_w = 2 + r.below(2);
  c.stride_h = c.stride_w = 1 + r.below(2);
  c.dilation_h = c.dilation_w = 1;
  c.top = c.left = r.below(2);
  float* factor = m.make<float>(1);
  factor[0] = 0.11f;
  c.factors = factor;
  c.one_factor = 1;
  c.x_zero = r.below(256);
  c.zero = r.below(256);
  c.high = 255;
  c.x = codes(r, m, static_cast<int64_t>(c.height) * c.width * c.channels);
  const int64_t out_h = (c.height + c.top - c.kernel_h) / c.stride_h + 1, out_w = (c.width + c.left - c.kernel_w) / c.stride_w + 1;
  uint8_t* y = m.make<uint8_t>(out_h * out_w * c.channels);
  c.y = y;
  return run(&c, y, out_h * out_w * c.channels);
}

uint64_t table(Random r) {
  Memory m;
  fb_table c{};
  c.op = FB_TABLE;
  c.rows = 1 + r.below(2);
  c.count = 1 + r.below(900);
  c.inner = 1;
  c.table = codes(r, m, 512);
  c.x = codes(r, m, c.count);
  c.y = m.make<uint8_t>(c.count);
  return run(&c, c.y, c.count);
}

}  // namespace

int main(int argc, char** argv) {
  const int32_t cases = argc > 1 ? std::atoi(argv[1]) : 200;
  using Family = uint64_t (*)(Random);
  const Family families[] = {conv, conv, conv, matmul, pair, norm, grouped, binary, softmax, pool, table};
  uint64_t first = 0;
  int32_t levels = 0, wrong = 0;
  for (int32_t level = 0; level < 8; ++level) {
    if (fb_set_level(level)) continue;
    uint64_t all = 0;
    for (int32_t number = 0; number < cases; ++number) {
      for (uint64_t family = 0; family < sizeof families / sizeof *families; ++family) {
        const uint64_t one = families[family](Random{(static_cast<uint64_t>(number) << 8) + family + 1});
        all = all * 31 + one;
      }
    }
    if (levels++ == 0) first = all;
    wrong += all != first;
    std::printf("level %d: %016llx\n", static_cast<int>(level), static_cast<unsigned long long>(all));
  }
  return wrong != 0;
}

// Calls checked, cut into parts, and run.
#include <cmath>
#include <cstring>
#include <initializer_list>

#include "kernels.h"  // fb_scratch, of the calls of a recurrence
#include "packed.h"
#include "threads.h"

namespace fb {
namespace {

constexpr int64_t kMost = INT64_C(1) << 46;  // codes of one array: products of sizes stay far below 2^63
constexpr int64_t kSlack = 64;               // bytes that inner loops may read behind the codes in scratch
constexpr int64_t kGrain = 32768;            // codes from which on two threads gain: six microseconds
constexpr int64_t kLine = 64;                // of the cache: codes that are not parted
constexpr int64_t kShort = 256;              // bytes of a line that is sooner written twice than its margins for themselves

#define FB_TRY(...)                    \
  do {                                 \
    const int32_t wrong = __VA_ARGS__; \
    if (wrong) return wrong;           \
  } while (false)
#define FB_REQUIRE(condition, otherwise) \
  do {                                   \
    if (!(condition)) return otherwise;  \
  } while (false)

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Of as many as are asked for, which may be any number.
int32_t threads_of_call(int32_t threads) { return threads < 1 ? 1 : threads > kMostThreads ? kMostThreads : threads; }

// The product of sizes that are at least 1; -1 where one is not, or it is too much.
template <typename... Sizes>
int64_t product_of(Sizes... sizes) {
  int64_t product = 1;
  for (const int64_t size : {static_cast<int64_t>(sizes)...}) {
    if (size < 1 || size > kMost || product > kMost / size) return -1;
    product *= size;
  }
  return product;
}

bool at_home(const void* p, uintptr_t size) { return reinterpret_cast<uintptr_t>(p) % size == 0; }

int32_t bounds(int32_t low, int32_t high, int32_t zero, int32_t type) {
  const int32_t least = type == FB_S16 ? INT16_MIN : 0, most = type == FB_S16 ? INT16_MAX : 255;
  const bool right = low <= high && low >= least && high <= most && zero >= least && zero <= most;
  return right ? FB_OK : FB_RANGE;
}

int32_t check_rescale(const fb_rescale& r, int64_t channels) {
  const int64_t count = r.per_channel ? channels : 1;
  switch (r.kind) {
    case FB_SUMS:
      return r.type == FB_S32 ? FB_OK : FB_LAYOUT;
    case FB_REAL:
      FB_REQUIRE(r.type == FB_F32, FB_LAYOUT);
      FB_REQUIRE(r.factor, FB_NULL);
      FB_REQUIRE(at_home(r.factor, 4) && at_home(r.offset, 4), FB_LAYOUT);
      return FB_OK;
    case FB_FLOAT:
      FB_REQUIRE(r.type == FB_U8 || r.type == FB_S16, FB_LAYOUT);
      FB_REQUIRE(r.factor, FB_NULL);
      FB_REQUIRE(at_home(r.factor, 4), FB_LAYOUT);
      return bounds(r.low, r.high, r.zero, r.type);
    case FB_DOUBLE:
    case FB_SINGLE:
    case FB_WIDE:
      FB_REQUIRE(r.type == FB_U8 || r.type == FB_S16, FB_LAYOUT);
      FB_REQUIRE(r.mantissa && r.shift, FB_NULL);
      FB_REQUIRE(at_home(r.mantissa, 4) && at_home(r.shift, 4), FB_LAYOUT);
      for (int64_t i = 0; i < count; ++i) {
        FB_REQUIRE(r.mantissa[i] >= 0 && r.shift[i] <= 30 && r.shift[i] >= (r.kind == FB_SINGLE ? -31 : -47), FB_RANGE);
      }
      return bounds(r.low, r.high, r.zero, r.type);
    case FB_LEVELS:
      FB_REQUIRE(r.type == FB_U8, FB_LAYOUT);
      FB_REQUIRE(r.thresholds && r.direction && r.levels, FB_NULL);
      FB_REQUIRE(at_home(r.thresholds, 4) && at_home(r.direction, 4), FB_LAYOUT);
      FB_REQUIRE(r.number >= 1 && r.number <= 255 && r.channels >= count, FB_RANGE);
      return FB_OK;
    default:
      return FB_LAYOUT;
  }
}

// Blocks of columns that share what is read of the codes.
int32_t side_by_side() { return kernels().tiles ? 2 : 4; }

int32_t size_of(int32_t type) { return type == FB_U8 || type == FB_S8 ? 1 : type == FB_S16 ? 2 : 4; }

// Output sizes of windows; 0 where none fits.
int32_t windows(int32_t size, int32_t before, int32_t after, int32_t kernel, int32_t stride, int32_t dilation) {
  const int64_t all = static_cast<int64_t>(size) + before + after;
  const int64_t reach = static_cast<int64_t>(dilation) * (kernel - 1) + 1;
  return all < reach || all > INT32_MAX ? 0 : static_cast<int32_t>((all - reach) / stride + 1);
}

template <typename Windows>
int32_t out_h(const Windows& c) {
  return windows(c.height, c.top, c.bottom, c.kernel_h, c.stride_h, c.dilation_h);
}

template <typename Windows>
int32_t out_w(const Windows& c) {
  return windows(c.width, c.left, c.right, c.kernel_w, c.stride_w, c.dilation_w);
}

template <typename Windows>
int32_t check_windows(const Windows& c) {
  FB_REQUIRE(product_of(c.batch, c.height, c.width, c.channels) > 0, FB_SIZE);
  FB_REQUIRE(product_of(c.kernel_h, c.kernel_w, c.stride_h, c.stride_w, c.dilation_h, c.dilation_w) > 0, FB_SIZE);
  FB_REQUIRE(c.top >= 0 && c.bottom >= 0 && c.left >= 0 && c.right >= 0, FB_SIZE);
  FB_REQUIRE(out_h(c) > 0 && out_w(c) > 0, FB_SIZE);
  const int64_t with_margins = product_of(static_cast<int64_t>(c.height) + c.top + c.bottom,
                                          static_cast<int64_t>(c.width) + c.left + c.right, c.channels, c.batch);
  return with_margins > 0 ? FB_OK : FB_SIZE;
}

// ------------------------------------------------------------------------------ convolutions

// A convolution as it is run: a 1×1 one over neighbouring pixels is a linear layer.
struct Conv {
  fb_conv c;
  int32_t high, wide;             // of the output
  int64_t read_bytes, image_bytes, output;  // of one image: bytes as they come, with margins, codes of the output
  int64_t line, reach;            // with margins: bytes of a line; lines under the kernel
  int64_t steps;                  // of the dense form, of a block of columns
  int64_t sums_bytes;
  bool copied;
};

Conv prepared(const fb_conv& call) {
  Conv p{};
  p.c = call;
  fb_conv& c = p.c;
  const bool margins = c.top || c.bottom || c.left || c.right;
  if (c.layout == FB_PACKED && c.kernel_h == 1 && c.kernel_w == 1 && c.stride_h == 1 && c.stride_w == 1 && !margins &&
      static_cast<int64_t>(c.batch) * c.height * c.width <= INT32_MAX) {
    c.width *= c.batch * c.height;
    c.batch = c.height = 1;
  }
  p.high = out_h(c);
  p.wide = out_w(c);
  p.output = static_cast<int64_t>(p.high) * p.wide * c.out_channels;
  if (c.layout != FB_PACKED) return p;
  const Packed& h = *static_cast<const Packed*>(c.weights);
  const int32_t item = h.wide ? 2 : 1;
  const bool widened = h.wide && c.x_type == FB_U8;
  const Runs runs = runs_of(c, h.wide != 0);
  const bool reads_on = h.kind == kDepthwise ? c.channels % 16 != 0 : runs.steps * (h.wide ? 2 : 4) != runs.codes;
  p.read_bytes = static_cast<int64_t>(c.height) * c.width * c.channels * (c.x_type == FB_S16 ? 2 : 1);
  p.line = static_cast<int64_t>(c.width + c.left + c.right) * c.channels * item;
  p.reach = static_cast<int64_t>(c.kernel_h - 1) * c.dilation_h + 1;
  p.steps = static_cast<int64_t>(h.runs_y) * h.runs_x * h.steps_of_run;
  p.copied = margins || widened || (reads_on && c.beyond < kSlack - 1);
  p.image_bytes = p.copied ? aligned(static_cast<int64_t>(c.height + c.top + c.bottom) * p.line + kSlack) : 0;
  p.sums_bytes = (h.kind == kDepthwise ? h.blocks : static_cast<int64_t>(h.blocks) * h.groups) * 64;
  return p;
}

// A convolution in the form of Winograd: images filled up to whole tiles, a few at a time, and of their tiles some.
struct Tiled {
  int32_t high, wide, tiles_y, tiles_x, depth, blocks, images;
  int64_t line, image, some, of_slice;  // image: bytes; some: tiles at once; of_slice: blocks of 16 columns at once
  int64_t images_bytes, v_bytes, m_bytes, sums_bytes;
};

Tiled tiled(const fb_conv& c) {
  const Packed& h = *static_cast<const Packed*>(c.weights);
  Tiled t{};
  t.high = out_h(c);
  t.wide = out_w(c);
  t.tiles_y = (t.high + 3) / 4;
  t.tiles_x = (t.wide + 3) / 4;
  t.depth = 2 * h.steps_of_run;
  t.blocks = h.blocks;
  const int64_t of_image = static_cast<int64_t>(t.tiles_y) * t.tiles_x;
  t.images = of_image >= 24 ? 1 : static_cast<int32_t>((24 + of_image - 1) / of_image);
  if (t.images > c.batch) t.images = c.batch;
  t.line = (static_cast<int64_t>(t.tiles_x) * 4 + 2) * c.channels;
  t.image = (static_cast<int64_t>(t.tiles_y) * 4 + 2) * t.line;
  t.some = (256 << 10) / (72 * t.depth);  // what stays in the second-level cache
  t.some = t.some < 24 ? 24 : t.some > 48 ? 48 : t.some / 6 * 6;
  const int64_t all = of_image * t.images, turns = (all + t.some - 1) / t.some;
  t.some = (all + turns - 1) / turns;
  t.of_slice = (192 << 10) / (36 * 64 * t.some);
  t.of_slice = t.of_slice < 1 ? 1 : t.of_slice > 4 ? 4 : t.of_slice;
  t.images_bytes = aligned(t.image * t.images + kSlack);
  t.v_bytes = aligned(36 * t.some * t.depth * 2);
  t.m_bytes = 36 * t.some * t.blocks * 64;
  t.sums_bytes = t.blocks * 64;
  return t;
}

bool is_winograd(const fb_conv& c) {
  return c.layout == FB_PACKED && static_cast<const Packed*>(c.weights)->kind == kWinograd;
}

// How threads share a packed convolution. What is read with margins is copied first: by all together, or by each thread what
// it reads, so that nobody waits for the others between and what one wrote is not fetched from its cache by another.
enum class Share {
  kPixels,  // of one image after the other, copied by all together
  kRows,    // of the output, the same
  kColumns, // blocks of sixteen of them, or groups: each thread has all images for itself, and its weights alone
  kImages,
};

struct Shared {
  Share by;
  int64_t image_bytes;  // from one thread's copy to the next's; with rows: by how much they overlap
  int64_t bytes;        // of all copies
};

Shared shared(const Conv& p, int32_t threads) {
  const fb_conv& c = p.c;
  const Packed& h = *static_cast<const Packed*>(c.weights);
  const int64_t pixels = static_cast<int64_t>(p.high) * p.wide, columns = c.groups > 1 ? c.groups : h.blocks;
  threads = threads_of_call(threads);
  if (h.kind != kDepthwise) {
    const int64_t weights = h.bytes - h.steps, written = p.output * size_of(c.rescale.type);
    const int64_t read = p.copied ? p.image_bytes : p.read_bytes;
    const int64_t least = c.groups > 1 ? 1 : side_by_side();
    const bool few = pixels < 24 * threads && columns >= threads;
    if (few || (weights > read + written && columns >= least * threads)) return {Share::kColumns, p.image_bytes, threads * p.image_bytes};
  }
  if (c.batch >= threads && (c.batch % threads == 0 || c.batch >= 4 * threads)) return {Share::kImages, p.image_bytes, threads * p.image_bytes};
  // Rows where they come out even.
  const int64_t high = p.high, rows = (high + threads - 1) / threads * threads;
  if (h.kind != kDepthwise && (!p.copied || 8 * rows > 9 * high)) return {Share::kPixels, 0, p.image_bytes};
  const int64_t more = p.copied ? aligned((p.reach > c.stride_h ? p.reach - c.stride_h : 0) * p.line + kSlack) : 0;
  return {Share::kRows, more, p.image_bytes + (threads - 1) * more};
}

int64_t scratch_of(const fb_conv& call, int32_t threads) {
  if (is_winograd(call)) {
    const Tiled t = tiled(call);
    return t.images_bytes + t.v_bytes + t.m_bytes + 2 * t.sums_bytes;
  }
  const Conv p = prepared(call);
  return call.layout == FB_PACKED ? shared(p, threads).bytes + aligned(p.sums_bytes) + 64 : 0;
}

// Rows [begin, end) of an image with its margins, the first of them at `to`.
void copy_rows(const Conv& p, const Packed& h, const uint8_t* image, uint8_t* to, int64_t begin, int64_t end) {
  const fb_conv& c = p.c;
  const int64_t line = static_cast<int64_t>(c.width + c.left + c.right) * c.channels;
  const int64_t codes = static_cast<int64_t>(c.width) * c.channels, before = static_cast<int64_t>(c.left) * c.channels;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t from = row - c.top;
    const bool inside = from >= 0 && from < c.height;
    if (!h.wide) {
      uint8_t* out = to + (row - begin) * line;
      if (line < kShort) {  // one call for all margins
        if (row == begin) std::memset(out, c.x_zero, static_cast<size_t>((end - begin) * line));
        if (inside) std::memcpy(out + before, image + from * codes, static_cast<size_t>(codes));
        continue;
      }
      if (!inside) {
        std::memset(out, c.x_zero, static_cast<size_t>(line));
        continue;
      }
      std::memset(out, c.x_zero, static_cast<size_t>(before));
      std::memcpy(out + before, image + from * codes, static_cast<size_t>(codes));
      std::memset(out + before + codes, c.x_zero, static_cast<size_t>(line - before - codes));
      continue;
    }
    int16_t* out = reinterpret_cast<int16_t*>(to) + (row - begin) * line;
    const int16_t zero = static_cast<int16_t>(c.x_zero);
    for (int64_t i = 0; i < (inside ? before : line); ++i) out[i] = zero;
    if (!inside) continue;
    if (c.x_type == FB_S16) {
      std::memcpy(out + before, image + 2 * from * codes, static_cast<size_t>(2 * codes));
    } else {
      const uint8_t* x = image + from * codes;
      for (int64_t i = 0; i < codes; ++i) out[before + i] = x[i];
    }
    for (int64_t i = before + codes; i < line; ++i) out[i] = zero;
  }
}

// What sums start with: the bias, less what the zero point adds.
void start_sums(const fb_conv& c, const Packed& h, int32_t* sums) {
  const int32_t* weight_sums = reinterpret_cast<const int32_t*>(reinterpret_cast<const uint8_t*>(&h) + h.weight_sums);
  const int32_t zero = h.wide || h.kind == kDepthwise ? c.x_zero : c.x_zero - kernels().code_offset;
  const int32_t groups = h.kind == kDepthwise ? 1 : c.groups, columns = c.out_channels / groups;
  for (int32_t group = 0; group < groups; ++group) {
    for (int32_t i = 0; i < 16 * h.blocks; ++i) {
      const int64_t at = static_cast<int64_t>(group) * h.blocks * 16 + i;
      const uint32_t bias = c.bias && i < columns ? static_cast<uint32_t>(c.bias[group * columns + i]) : 0;
      sums[at] = static_cast<int32_t>(bias - static_cast<uint32_t>(zero) * static_cast<uint32_t>(weight_sums[at]));
    }
  }
}

// Rows [begin, end) of an image filled up to whole tiles.
void fill_rows(const fb_conv& c, const Tiled& t, const uint8_t* image, uint8_t* to, int64_t begin, int64_t end) {
  const int64_t codes = static_cast<int64_t>(c.width) * c.channels, before = static_cast<int64_t>(c.left) * c.channels;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t from = row - c.top;
    uint8_t* out = to + row * t.line;
    if (from < 0 || from >= c.height) {
      std::memset(out, c.x_zero, static_cast<size_t>(t.line));
      continue;
    }
    const int64_t there = codes < t.line - before ? codes : t.line - before;
    std::memset(out, c.x_zero, static_cast<size_t>(before));
    std::memcpy(out + before, image + from * codes, static_cast<size_t>(there));
    std::memset(out + before + there, c.x_zero, static_cast<size_t>(t.line - before - there));
  }
}

void run_winograd(const fb_conv& c, int32_t threads, uint8_t* scratch) {
  const Kernels& k = kernels();
  const Packed& h = *static_cast<const Packed*>(c.weights);
  const Tiled t = tiled(c);
  uint8_t* images = scratch;
  int32_t* sums = reinterpret_cast<int32_t*>(scratch + t.images_bytes + t.v_bytes + t.m_bytes);
  int32_t* zeros = sums + t.blocks * 16;
  start_sums(c, h, sums);
  std::memset(zeros, 0, static_cast<size_t>(t.sums_bytes));
  const fb_rescale plain{nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, 0, 0, FB_SUMS, 0, 0, 0, 0, FB_S32};
  const int64_t of_product = static_cast<int64_t>(t.blocks) * h.steps_of_run * 64, of_image = static_cast<int64_t>(t.tiles_y) * t.tiles_x;
  const int64_t in_bytes = static_cast<int64_t>(c.height) * c.width * c.channels;
  const int64_t out_bytes = static_cast<int64_t>(t.high) * t.wide * c.out_channels * size_of(c.rescale.type);
  const int64_t slices_of_threads = (t.blocks + threads - 1) / threads;
  const int64_t wide = threads > 1 && slices_of_threads < t.of_slice ? slices_of_threads : t.of_slice;
  for (int32_t first = 0; first < c.batch; first += t.images) {
    const int32_t count = c.batch - first < t.images ? c.batch - first : t.images;
    const int64_t lines = static_cast<int64_t>(t.tiles_y) * 4 + 2;
    for (int32_t i = 0; i < count; ++i) {
      const uint8_t* image = static_cast<const uint8_t*>(c.x) + (first + i) * in_bytes;
      parallel(threads, lines, (kGrain + t.line - 1) / t.line, 1,
               [&](int64_t b, int64_t e) { fill_rows(c, t, image, images + i * t.image, b, e); });
    }
    Winograd w{};
    w.x = images;
    w.line = t.line;
    w.image = t.image;
    w.channels = c.channels;
    w.depth = t.depth;
    w.tiles_y = t.tiles_y;
    w.tiles_x = t.tiles_x;
    w.v = reinterpret_cast<int16_t*>(scratch + t.images_bytes);
    w.sums = sums;
    w.rescale = &c.rescale;
    w.y = static_cast<uint8_t*>(c.y) + first * out_bytes;
    w.high = t.high;
    w.wide = t.wide;
    w.columns = c.out_channels;
    for (; w.first < count * of_image; w.first += t.some) {
      w.count = count * of_image - w.first < t.some ? count * of_image - w.first : t.some;
      parallel(threads, w.count, 4, 4, [&](int64_t b, int64_t e) { k.winograd_in(&w, b, e); });
      parallel(threads, (t.blocks + wide - 1) / wide, 1, 1, [&](int64_t b, int64_t e) {
        for (int64_t slice = b; slice < e; ++slice) {
          const int64_t block = slice * wide, blocks = t.blocks - block < wide ? t.blocks - block : wide;
          Winograd own = w;
          own.m_step = blocks * 16;
          own.m = reinterpret_cast<int32_t*>(scratch + t.images_bytes + t.v_bytes) + (threads > 1 ? 36 * t.some * block * 16 : 0);
          for (int64_t product = 0; product < 36; ++product) {
            Product p{};
            p.x = reinterpret_cast<const uint8_t*>(w.v + product * w.count * w.depth);
            p.steps = reinterpret_cast<const uint8_t*>(&h) + h.steps + product * of_product;
            p.sums = zeros;
            p.rescale = &plain;
            p.y = own.m + product * w.count * own.m_step;
            p.y_step = own.m_step;
            p.first_channel = -16 * block;
            p.columns = t.blocks * 16;
            p.width = static_cast<int32_t>(w.count);
            p.pixel = static_cast<int64_t>(w.depth) * 2;
            p.runs_y = p.runs_x = 1;
            p.steps_of_run = h.steps_of_run;
            p.wide = true;
            k.product(&p, 0, w.count, static_cast<int32_t>(block), static_cast<int32_t>(block + blocks));
          }
          k.winograd_out(&own, 0, w.count, 16 * block, static_cast<int32_t>(16 * blocks));
        }
      });
    }
  }
}

// The weights that a thread reads first of the convolution behind the one in hand; none where the level does not ask for them.
struct Ahead {
  const uint8_t* from;
  int64_t bytes;
};

Ahead ahead_of(const fb_conv* next, int32_t threads, int32_t number) {
  if (!next || !kernels().tiles || next->layout != FB_PACKED || static_cast<const Packed*>(next->weights)->kind != kDense) return {nullptr, 0};
  const Packed& h = *static_cast<const Packed*>(next->weights);
  const Conv p = prepared(*next);
  const int64_t block = p.steps * (h.bits ? 8 * h.bits : 64);
  int64_t first = 0;
  if (next->groups == 1 && shared(p, threads).by == Share::kColumns) {
    const int64_t least = side_by_side(), pieces = (h.blocks + least - 1) / least;
    first = number * ((pieces + threads - 1) / threads) * least;
  }
  if (first >= h.blocks) return {nullptr, 0};
  const int64_t there = h.blocks - first < side_by_side() ? h.blocks - first : side_by_side();
  return {static_cast<const uint8_t*>(next->weights) + h.steps + first * block, there * block};
}

// What one thread does of a packed convolution.
struct Portion {
  const uint8_t* x;      // an image
  uint8_t* y;            // its codes
  uint8_t* copy;         // where the lines go that it reads, with their margins; null where x has them
  int64_t begin, end;    // pixels; whole rows where there is a copy
  int32_t first, last;   // blocks of columns, or groups
  Ahead ahead;
};

void run_portion(const Conv& p, const int32_t* sums, const Portion& part) {
  const Kernels& k = kernels();
  const fb_conv& c = p.c;
  const Packed& h = *static_cast<const Packed*>(c.weights);
  const uint8_t* base = static_cast<const uint8_t*>(c.weights);
  const int32_t item = h.wide ? 2 : 1;
  const uint8_t* x = part.x;
  uint8_t* y = part.y;
  int64_t begin = part.begin, end = part.end;
  if (part.copy) {
    const int64_t row = begin / p.wide, rows = (end - begin) / p.wide;
    copy_rows(p, h, x, part.copy, row * c.stride_h, (row + rows - 1) * c.stride_h + p.reach);
    x = part.copy;
    y += begin * c.out_channels * size_of(c.rescale.type);
    end -= begin;
    begin = 0;
  }
  if (h.kind == kDepthwise) {
    int32_t taps[132];
    const int32_t number = c.kernel_h * c.kernel_w;
    for (int32_t tap = 0; tap < (number + 3) / 4 * 4; ++tap) {
      const int32_t there = tap < number ? tap : 0;
      taps[tap] = static_cast<int32_t>(there / c.kernel_w * c.dilation_h * p.line + there % c.kernel_w * c.dilation_w * c.channels);
    }
    const Depthwise d{x, base + h.steps, sums, &c.rescale, y, taps, number, c.channels, p.wide,
                      static_cast<int64_t>(c.stride_w) * c.channels, c.stride_h * p.line};
    k.depthwise(&d, begin / p.wide, end / p.wide);
    return;
  }
  const bool grouped = c.groups > 1;
  for (int32_t group = grouped ? part.first : 0; group < (grouped ? part.last : 1); ++group) {
    const int64_t block = static_cast<int64_t>(group) * h.blocks;
    const int32_t columns = c.out_channels / c.groups;
    Product product{};
    product.x = x + static_cast<int64_t>(group) * h.depth * item;
    product.steps = base + h.steps + block * p.steps * (h.bits ? 8 * h.bits : 64);
    product.sums = sums + block * 16;
    if (h.extra_first) {
      product.extra = base + h.extra;
      product.extra_first = reinterpret_cast<const int32_t*>(base + h.extra_first) + 2 * block;
      product.extra_place = reinterpret_cast<const int32_t*>(base + h.extra_place);
    }
    product.rescale = &c.rescale;
    product.y = y;
    product.y_step = c.out_channels;
    product.first_channel = static_cast<int64_t>(group) * columns;
    product.columns = columns;
    product.width = p.wide;
    product.pixel = static_cast<int64_t>(c.stride_w) * c.channels * item;
    product.line = c.stride_h * p.line;
    product.runs_y = h.runs_y;
    product.runs_x = h.runs_x;
    product.run_y = c.dilation_h * p.line;
    product.run_x = static_cast<int64_t>(c.dilation_w) * c.channels * item;
    product.steps_of_run = h.steps_of_run;
    product.wide = h.wide != 0;
    product.bits = h.bits;
    product.values = h.values;
    product.ahead = part.ahead.from;
    product.ahead_bytes = part.ahead.bytes;
    k.product(&product, begin, end, grouped ? 0 : part.first, grouped ? h.blocks : part.last);
  }
}

// next: the convolution behind it, or null.
void run_conv(const fb_conv& call, int32_t threads, uint8_t* scratch, const fb_conv* next) {
  if (is_winograd(call)) return run_winograd(call, threads, scratch);
  const Conv p = prepared(call);
  const fb_conv& c = p.c;
  if (c.layout != FB_PACKED) {
    parallel(threads, static_cast<int64_t>(c.batch) * p.high, 1, 1, [&](int64_t b, int64_t e) { kernels().conv(&c, b, e); });
    return;
  }
  const Packed& h = *static_cast<const Packed*>(c.weights);
  const int64_t pixels = static_cast<int64_t>(p.high) * p.wide;
  const int32_t columns = c.groups > 1 ? c.groups : h.blocks;
  // Fewer products are done before another thread has what it reads.
  const int64_t products = c.batch * pixels * h.blocks * (h.kind == kDepthwise ? static_cast<int64_t>(c.kernel_h) * c.kernel_w : p.steps * c.groups);
  if (products < (kernels().tiles && h.kind != kDepthwise ? 65536 : 16384)) threads = 1;
  const Shared how = shared(p, threads);
  int32_t* sums = reinterpret_cast<int32_t*>(scratch);
  uint8_t* const copy = p.copied ? scratch + aligned(p.sums_bytes) : nullptr;
  start_sums(c, h, sums);
  const auto portion = [&](int64_t image, int32_t number) {
    const uint8_t* const x = static_cast<const uint8_t*>(c.x) + image * p.read_bytes;
    uint8_t* const y = static_cast<uint8_t*>(c.y) + image * p.output * size_of(c.rescale.type);
    return Portion{x, y, copy, 0, pixels, 0, columns, image + 1 < c.batch ? Ahead{nullptr, 0} : ahead_of(next, threads, number)};
  };
  if (how.by == Share::kImages) {
    parallel(threads, c.batch, 1, 1, [&](int64_t b, int64_t e, int32_t number) {
      for (int64_t image = b; image < e; ++image) {
        Portion part = portion(image, number);
        if (copy) part.copy += number * how.image_bytes;
        run_portion(p, sums, part);
      }
    });
    return;
  }
  if (how.by == Share::kColumns) {
    const int32_t least = c.groups > 1 ? 1 : side_by_side();
    parallel(threads, columns, least, least, [&](int64_t b, int64_t e, int32_t number) {
      for (int64_t image = 0; image < c.batch; ++image) {
        Portion part = portion(image, number);
        if (copy) part.copy += number * how.image_bytes;
        part.first = static_cast<int32_t>(b);
        part.last = static_cast<int32_t>(e);
        run_portion(p, sums, part);
      }
    });
    return;
  }
  for (int64_t image = 0; image < c.batch; ++image) {
    if (how.by == Share::kRows) {
      parallel(threads, p.high, 1, 1, [&](int64_t b, int64_t e, int32_t number) {
        Portion part = portion(image, number);
        if (copy) part.copy += b * c.stride_h * p.line + number * how.image_bytes;
        part.begin = b * p.wide;
        part.end = e * p.wide;
        run_portion(p, sums, part);
      });
      continue;
    }
    if (copy) {
      const int64_t lines = c.height + c.top + c.bottom;
      const uint8_t* const x = static_cast<const uint8_t*>(c.x) + image * p.read_bytes;
      parallel(threads, lines, (kGrain + p.line - 1) / p.line, 1,
               [&](int64_t b, int64_t e) { copy_rows(p, h, x, copy + b * p.line, b, e); });
    }
    // Tiles want whole rows.
    const int64_t grain = kernels().tiles && c.stride_h * p.line != p.wide * static_cast<int64_t>(c.stride_w) * c.channels * (h.wide ? 2 : 1) ? p.wide : 24;
    parallel(threads, pixels, grain, grain, [&](int64_t b, int64_t e, int32_t number) {
      Portion part = portion(image, number);
      if (copy) {
        part.x = copy;
        part.copy = nullptr;
      }
      part.begin = b;
      part.end = e;
      run_portion(p, sums, part);
    });
  }
}

}  // namespace

int32_t check_conv(const fb_conv& c) {
  FB_REQUIRE(c.x && c.y && c.weights, FB_NULL);
  FB_REQUIRE(c.x_type == FB_U8 || c.x_type == FB_S16, FB_LAYOUT);
  FB_REQUIRE(c.weight_type == FB_S8 || c.weight_type == FB_S16, FB_LAYOUT);
  FB_REQUIRE(c.layout == FB_PLAIN || c.layout == FB_PACKED, FB_LAYOUT);
  FB_REQUIRE(c.out_channels >= 1 && c.groups >= 1 && c.beyond >= 0, FB_SIZE);
  FB_TRY(check_windows(c));
  FB_REQUIRE(c.channels % c.groups == 0 && c.out_channels % c.groups == 0, FB_SIZE);
  FB_REQUIRE(product_of(c.out_channels, c.channels / c.groups, c.kernel_h, c.kernel_w) > 0, FB_SIZE);
  FB_REQUIRE(product_of(c.batch, out_h(c), out_w(c), c.out_channels) > 0, FB_SIZE);
  FB_REQUIRE(product_of(c.dilation_h, static_cast<int64_t>(c.width) + c.left + c.right, c.channels, 2, c.kernel_h) > 0 &&
             product_of(c.dilation_h, static_cast<int64_t>(c.width) + c.left + c.right, c.channels, 2, c.kernel_h) <= INT32_MAX,
             FB_SIZE);
  FB_REQUIRE(at_home(c.x, size_of(c.x_type)) && at_home(c.y, size_of(c.rescale.type)) && at_home(c.bias, 4), FB_LAYOUT);
  FB_REQUIRE(c.x_type == FB_U8 ? c.x_zero >= 0 && c.x_zero <= 255 : c.x_zero >= INT16_MIN && c.x_zero <= INT16_MAX, FB_RANGE);
  FB_TRY(check_rescale(c.rescale, c.out_channels));
  if (c.layout == FB_PLAIN) return at_home(c.weights, size_of(c.weight_type)) ? FB_OK : FB_LAYOUT;
  FB_REQUIRE(at_home(c.weights, 64), FB_LAYOUT);
  const Packed& h = *static_cast<const Packed*>(c.weights);
  FB_REQUIRE(h.magic == kMagic && h.level == level() && (h.kind == kDense || h.kind == kDepthwise || h.kind == kWinograd), FB_LAYOUT);
  FB_REQUIRE(h.out_channels == c.out_channels && h.groups == c.groups && h.depth == c.channels / c.groups &&
                 h.kernel_h == c.kernel_h && h.kernel_w == c.kernel_w,
             FB_LAYOUT);
  if (h.kind == kDepthwise) return is_depthwise(c) ? FB_OK : FB_LAYOUT;
  if (h.kind == kWinograd) return is_3x3(c) && kernels().winograd_in ? FB_OK : FB_LAYOUT;
  const Runs runs = runs_of(c, h.wide != 0);
  FB_REQUIRE(runs.y == h.runs_y && runs.x == h.runs_x && runs.steps == h.steps_of_run && (h.wide || !is_wide(c)), FB_LAYOUT);
  return FB_OK;
}

namespace {

// --------------------------------------------------------------------------- matrix products

// The second matrix packed as weights, and for each row of the first what its sum adds.
struct Matrix {
  bool wide, packed;
  int32_t blocks, steps;
  int64_t weights_bytes, sums_bytes, added_bytes, row_bytes, rows_bytes;
};

Matrix prepared(const fb_matmul& c) {
  const Kernels& k = kernels();
  Matrix m{};
  m.packed = k.product != nullptr;
  m.wide = k.pairs;  // b less its zero point has 9 bits
  m.blocks = (c.columns + 15) / 16;
  m.steps = m.wide ? (c.depth + 1) / 2 : whole_tiles((c.depth + 3) / 4);
  m.weights_bytes = static_cast<int64_t>(m.blocks) * m.steps * 64;
  m.sums_bytes = m.blocks * 64;
  m.added_bytes = m.wide ? 0 : aligned(static_cast<int64_t>(c.rows) * 4);
  m.row_bytes = static_cast<int64_t>(m.steps) * 4;
  m.rows_bytes = m.wide || m.steps * 4 != c.depth ? aligned(c.rows * m.row_bytes) : 0;
  return m;
}

int64_t scratch_of(const fb_matmul& c) {
  const Matrix m = prepared(c);
  return m.packed ? m.weights_bytes + m.sums_bytes + m.added_bytes + m.rows_bytes : 0;
}

// `count` columns (16 at most) of the second matrix, from `column` on, into steps of four codes less 128; their sums.
void pack_columns(const fb_matmul& c, const uint8_t* b, int64_t column, int32_t count, int32_t steps, uint8_t* to, int32_t* totals) {
  constexpr uint32_t kFlip = 0x80808080u;
  const int32_t whole = c.depth / 4;
  std::memset(to + static_cast<int64_t>(whole) * 64, 0, static_cast<size_t>(steps - whole) * 64);
  if (count < 16) std::memset(to, 0, static_cast<size_t>(whole) * 64);
  if (c.b_transposed) {
    for (int32_t j = 0; j < count; ++j) {
      const uint8_t* from = b + (column + j) * c.depth;
      for (int32_t s = 0; s < whole; ++s) {
        uint32_t four;
        std::memcpy(&four, from + 4 * s, 4);
        four ^= kFlip;
        std::memcpy(to + 64 * s + 4 * j, &four, 4);
      }
      int32_t total = -128 * c.depth;
      for (int32_t depth = 0; depth < c.depth; ++depth) total += from[depth];
      totals[j] = total;
    }
  } else {
    for (int32_t j = 0; j < count; ++j) totals[j] = -128 * c.depth;
    for (int32_t s = 0; s < whole; ++s) {
      const uint8_t* from = b + static_cast<int64_t>(4 * s) * c.columns + column;
      for (int32_t j = 0; j < count; ++j) {
        const uint32_t first = from[j], second = from[c.columns + j], third = from[2 * static_cast<int64_t>(c.columns) + j],
                       fourth = from[3 * static_cast<int64_t>(c.columns) + j];
        const uint32_t four = (first | second << 8 | third << 16 | fourth << 24) ^ kFlip;
        std::memcpy(to + 64 * s + 4 * j, &four, 4);
        totals[j] += static_cast<int32_t>(first + second + third + fourth);
      }
    }
  }
  for (int32_t depth = 4 * whole; depth < c.depth; ++depth) {
    for (int32_t j = 0; j < count; ++j) {
      const int32_t code = c.b_transposed ? b[(column + j) * c.depth + depth] : b[static_cast<int64_t>(depth) * c.columns + column + j];
      to[static_cast<int64_t>(whole) * 64 + 4 * j + depth % 4] = static_cast<uint8_t>(code ^ 0x80);
      if (!c.b_transposed) totals[j] += code;
    }
  }
}

void run_matmul(const fb_matmul& c, int32_t threads, uint8_t* scratch) {
  const Kernels& k = kernels();
  const Matrix m = prepared(c);
  if (!m.packed) {
    parallel(threads, static_cast<int64_t>(c.batches) * c.rows, 1, 1, [&](int64_t b, int64_t e) { k.matmul(&c, b, e); });
    return;
  }
  uint8_t* weights = scratch;
  int32_t* sums = reinterpret_cast<int32_t*>(weights + m.weights_bytes);
  int32_t* added = reinterpret_cast<int32_t*>(reinterpret_cast<uint8_t*>(sums) + m.sums_bytes);
  uint8_t* rows = reinterpret_cast<uint8_t*>(added) + m.added_bytes;
  for (int32_t batch = 0; batch < c.batches; ++batch) {
    const uint8_t* a = static_cast<const uint8_t*>(c.a) + batch * c.a_step;
    const uint8_t* b = static_cast<const uint8_t*>(c.b) + batch * c.b_step;
    if (batch == 0 || c.b_step) {
      parallel(threads, m.blocks, 4, 1, [&](int64_t first, int64_t last) {
        for (int64_t block = first; block < last; ++block) {
          const int32_t there = c.columns - static_cast<int32_t>(block) * 16 < 16 ? c.columns - static_cast<int32_t>(block) * 16 : 16;
          uint8_t* to = weights + block * m.steps * 64;
          int32_t totals[16] = {0};
          if (m.wide) {
            std::memset(to, 0, static_cast<size_t>(m.steps) * 64);
          } else {
            pack_columns(c, b, block * 16, there, m.steps, to, totals);
          }
          for (int32_t depth = 0; m.wide && depth < c.depth; ++depth) {
            uint8_t* at = to + depth / 2 * 64 + depth % 2 * 2;
            const uint8_t* from = c.b_transposed ? b + block * 16 * c.depth + depth : b + static_cast<int64_t>(depth) * c.columns + block * 16;
            const int64_t next = c.b_transposed ? c.depth : 1;
            for (int32_t j = 0; j < there; ++j) {
              const int16_t v = static_cast<int16_t>(from[j * next] - c.b_zero);
              std::memcpy(at + 4 * j, &v, 2);
              totals[j] += v;
            }
          }
          // Σ (a − z_a)(b − z_b) = Σ (a − o)(b − 128) − (z_a − o) Σ (b − 128) − (z_b − 128) Σ (a − z_a)
          for (int32_t j = 0; j < 16; ++j) {
            const int32_t zero = m.wide ? c.a_zero : c.a_zero - k.code_offset;
            sums[block * 16 + j] = static_cast<int32_t>(0u - static_cast<uint32_t>(zero) * static_cast<uint32_t>(totals[j]));
          }
        }
      });
    }
    if (batch == 0 || c.a_step || c.b_step) {
      parallel(threads, c.rows, 64, 1, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
          const uint8_t* from = a + row * c.depth;
          if (m.wide) {
            int16_t* to = reinterpret_cast<int16_t*>(rows + row * m.row_bytes);
            for (int32_t i = 0; i < c.depth; ++i) to[i] = from[i];
            if (c.depth % 2) to[c.depth] = 0;
            continue;
          }
          int32_t total = 0;
          for (int32_t i = 0; i < c.depth; ++i) total += from[i];
          added[row] = static_cast<int32_t>((static_cast<uint32_t>(total) - static_cast<uint32_t>(c.depth) * static_cast<uint32_t>(c.a_zero)) *
                                            static_cast<uint32_t>(128 - c.b_zero));
          if (m.rows_bytes) {
            uint8_t* to = rows + row * m.row_bytes;
            std::memcpy(to, from, static_cast<size_t>(c.depth));
            std::memset(to + c.depth, 0, static_cast<size_t>(m.row_bytes - c.depth));
          }
        }
      });
    }
    Product product{};
    product.x = m.rows_bytes ? rows : a;
    product.steps = weights;
    product.sums = sums;
    product.added = m.wide || c.b_zero == 128 ? nullptr : added;  // nothing to add
    product.rescale = &c.rescale;
    product.y = static_cast<uint8_t*>(c.y) + static_cast<int64_t>(batch) * c.rows * c.columns * size_of(c.rescale.type);
    product.y_step = c.columns;
    product.columns = c.columns;
    product.width = c.rows;
    product.pixel = m.rows_bytes ? m.row_bytes : c.depth;
    product.runs_y = product.runs_x = 1;
    product.steps_of_run = m.steps;
    product.wide = m.wide;
    // By rows, each thread reading all of b, or by columns, each reading all of a: whichever lets them read less.
    const int64_t least = side_by_side();
    if (m.blocks >= least * threads && static_cast<int64_t>(m.blocks) * m.steps * 64 > c.rows * product.pixel) {
      parallel(threads, m.blocks, least, least, [&](int64_t first, int64_t last) {
        k.product(&product, 0, c.rows, static_cast<int32_t>(first), static_cast<int32_t>(last));
      });
    } else {
      parallel(threads, c.rows, 24, 24, [&](int64_t first, int64_t last) { k.product(&product, first, last, 0, m.blocks); });
    }
  }
}

int32_t check(const fb_matmul& c) {
  FB_REQUIRE(c.a && c.b && c.y, FB_NULL);
  FB_REQUIRE(product_of(c.batches, c.rows, c.depth) > 0 && product_of(c.batches, c.depth, c.columns) > 0 &&
                 product_of(c.batches, c.rows, c.columns) > 0,
             FB_SIZE);
  FB_REQUIRE(c.a_step >= 0 && c.b_step >= 0 && c.a_step < kMost && c.b_step < kMost, FB_SIZE);
  FB_REQUIRE(c.a_zero >= 0 && c.a_zero <= 255 && c.b_zero >= 0 && c.b_zero <= 255, FB_RANGE);
  FB_REQUIRE(at_home(c.y, size_of(c.rescale.type)) && !c.rescale.per_channel && !c.rescale.offset, FB_LAYOUT);
  return check_rescale(c.rescale, 1);
}

// ------------------------------------------------------------------------------ all the rest

int32_t check(const fb_pair& c) {
  FB_REQUIRE(c.a && c.b && c.y && (c.kind != FB_LOOKED_UP || c.table), FB_NULL);
  FB_REQUIRE(c.kind >= FB_ADD && c.kind <= FB_LOOKED_UP && c.axes >= 1 && c.axes <= FB_AXES, FB_LAYOUT);
  int64_t count = 1;
  for (int32_t axis = 0; axis < c.axes; ++axis) {
    count = count > 0 ? product_of(count, c.sizes[axis]) : -1;
    FB_REQUIRE(c.step_a[axis] >= 0 && c.step_b[axis] >= 0 && c.step_a[axis] < kMost && c.step_b[axis] < kMost, FB_SIZE);
  }
  FB_REQUIRE(count > 0, FB_SIZE);
  FB_REQUIRE(c.step_a[c.axes - 1] <= 1 && c.step_b[c.axes - 1] <= 1, FB_LAYOUT);
  for (const int32_t type : {c.a_type, c.b_type, c.y_type}) {
    const bool wide = c.kind == FB_ADD || c.kind == FB_SUBTRACT || c.kind == FB_MULTIPLY;
    FB_REQUIRE(type == FB_U8 || (type == FB_S16 && wide), FB_LAYOUT);
  }
  FB_REQUIRE(at_home(c.a, size_of(c.a_type)) && at_home(c.b, size_of(c.b_type)) && at_home(c.y, size_of(c.y_type)), FB_LAYOUT);
  if (c.kind >= FB_MAXIMUM) return FB_OK;
  FB_TRY(bounds(c.zero_a, c.zero_a, c.zero_a, c.a_type));
  FB_TRY(bounds(c.zero_b, c.zero_b, c.zero_b, c.b_type));
  return bounds(c.low, c.high, c.zero_y, c.y_type);
}

int64_t lines_of(const fb_pair& c) {
  int64_t lines = 1;
  for (int32_t axis = 0; axis + 1 < c.axes; ++axis) lines *= c.sizes[axis];
  return lines;
}

// Codes of 16 bits, so many from one on.
int32_t spans(int32_t low, int32_t codes) {
  return low >= INT16_MIN && codes >= 1 && codes <= 1 << 16 && low <= (1 << 15) - codes ? FB_OK : FB_RANGE;
}

int32_t check(const fb_table& c) {
  FB_REQUIRE(c.x && c.y && c.table, FB_NULL);
  FB_REQUIRE((c.x_type == FB_U8 || c.x_type == FB_S16) && (c.y_type == FB_U8 || c.y_type == FB_S16), FB_LAYOUT);
  FB_REQUIRE(at_home(c.x, size_of(c.x_type)) && at_home(c.y, size_of(c.y_type)) && at_home(c.table, size_of(c.y_type)), FB_LAYOUT);
  if (c.x_type == FB_S16) FB_TRY(spans(c.x_low, c.codes));
  return product_of(c.rows, c.count, c.inner) > 0 || (c.rows == 1 && product_of(c.count) > 0) ? FB_OK : FB_SIZE;
}

int32_t check(const fb_pool& c) {
  FB_REQUIRE(c.x && c.y && (!c.sums || c.factors), FB_NULL);
  FB_TRY(check_windows(c));
  FB_REQUIRE(product_of(c.kernel_h, c.kernel_w) <= 1 << 22, FB_SIZE);
  FB_REQUIRE(c.x_zero >= 0 && c.x_zero <= 255, FB_RANGE);
  FB_REQUIRE(at_home(c.factors, 4), FB_LAYOUT);
  return c.sums ? bounds(c.low, c.high, c.zero, FB_U8) : FB_OK;
}

int32_t check(const fb_mean& c) {
  FB_REQUIRE(c.x && c.y, FB_NULL);
  FB_REQUIRE(product_of(c.outer, c.length, c.inner) > 0 && c.length <= 1 << 22, FB_SIZE);
  FB_REQUIRE(c.x_zero >= 0 && c.x_zero <= 255, FB_RANGE);
  FB_REQUIRE(!c.rescale.per_channel && !c.rescale.offset && c.rescale.type == FB_U8, FB_LAYOUT);
  return check_rescale(c.rescale, 1);
}

int32_t check(const fb_softmax& c) {
  FB_REQUIRE(c.x && c.y && c.powers, FB_NULL);
  FB_REQUIRE(!c.whole || (c.part && c.below && !c.mask), c.mask ? FB_LAYOUT : FB_NULL);
  FB_REQUIRE(product_of(c.rows, c.length) > 0 && c.length <= 2047 && (!c.mask || c.mask_rows >= 1), FB_SIZE);
  FB_REQUIRE(at_home(c.powers, 4) && at_home(c.whole, 4) && at_home(c.part, 4) && at_home(c.below, 4), FB_LAYOUT);
  FB_REQUIRE(c.scale > 0.0f, FB_RANGE);
  FB_REQUIRE(c.x_type == FB_U8 || (c.x_type == FB_S16 && !c.whole && at_home(c.x, 2)), FB_LAYOUT);
  FB_REQUIRE(c.x_type == FB_S16 || (c.x_low == 0 && c.codes == 256), FB_RANGE);
  FB_TRY(spans(c.x_low, c.codes));
  for (int32_t i = 0; i < c.codes; ++i) FB_REQUIRE(c.powers[i] >= 0 && c.powers[i] <= 1 << 20, FB_RANGE);
  FB_REQUIRE(c.powers[c.codes] == 0 && c.powers[0] == 1 << 20, FB_RANGE);
  if (c.whole) {  // sums of what the tables hold stay in 32 bits
    for (int32_t i = 0; i < 256; ++i) FB_REQUIRE(c.below[i] >= 0 && c.below[i] <= 1 << 30, FB_RANGE);
    for (int32_t i = 0; i < 2048; ++i) FB_REQUIRE(c.whole[i] >= 0 && c.whole[i] <= 1 << 28, FB_RANGE);
    for (int32_t i = 0; i < 1025; ++i) FB_REQUIRE(c.part[i] >= 0 && c.part[i] <= 1 << 28, FB_RANGE);
  }
  return bounds(c.low, c.high, c.zero, FB_U8);
}

int32_t check(const fb_norm& c) {
  FB_REQUIRE(c.x && c.y && c.gain && c.shift, FB_NULL);
  FB_REQUIRE(product_of(c.rows, c.length) > 0 && c.length <= 1 << 26 && c.gain_rows >= 1, FB_SIZE);
  FB_REQUIRE(at_home(c.gain, 4) && at_home(c.shift, 4), FB_LAYOUT);
  FB_REQUIRE(c.x_type == FB_U8 || (c.x_type == FB_S16 && at_home(c.x, 2)), FB_LAYOUT);
  FB_REQUIRE(c.x_type == FB_U8 || c.length <= 1 << 14, FB_SIZE);
  FB_REQUIRE(c.scale > 0.0f && c.epsilon >= 0.0f, FB_RANGE);
  FB_TRY(bounds(c.x_zero, c.x_zero, c.x_zero, c.x_type));
  return bounds(c.low, c.high, c.zero, FB_U8);
}

int32_t check(const fb_quantize& c) {
  FB_REQUIRE(c.x && c.y, FB_NULL);
  FB_REQUIRE(product_of(c.count) > 0, FB_SIZE);
  FB_REQUIRE((c.type == FB_U8 || c.type == FB_S16) && at_home(c.x, 4) && at_home(c.y, size_of(c.type)), FB_LAYOUT);
  FB_REQUIRE(c.scale > 0.0f, FB_RANGE);
  return bounds(c.low, c.high, c.zero, c.type);
}

int32_t check(const fb_dequantize& c) {
  FB_REQUIRE(c.x && c.y && c.scale, FB_NULL);
  FB_REQUIRE(product_of(c.count, c.channels) > 0 && c.count % c.channels == 0, FB_SIZE);
  FB_REQUIRE((c.type == FB_U8 || c.type == FB_S16 || c.type == FB_S32) && at_home(c.x, size_of(c.type)) && at_home(c.y, 4) &&
                 at_home(c.scale, 4),
             FB_LAYOUT);
  FB_REQUIRE(c.zero >= INT16_MIN && c.zero <= INT16_MAX, FB_RANGE);
  return FB_OK;
}

int32_t check(const fb_move& c) {
  FB_REQUIRE(c.x && c.y, FB_NULL);
  FB_REQUIRE((c.item == 1 || c.item == 2 || c.item == 4 || c.item == 8) && (!c.table || c.item == 1) && c.axes >= 1 && c.axes <= FB_AXES &&
                 at_home(c.x, c.item) && at_home(c.y, c.item),
             FB_LAYOUT);
  int64_t count = 1;
  for (int32_t axis = 0; axis < c.axes; ++axis) {
    count = count > 0 ? product_of(count, c.sizes[axis]) : -1;
    for (const int64_t step : {c.step_x[axis], c.step_y[axis]}) FB_REQUIRE(step > -kMost && step < kMost, FB_SIZE);
  }
  return count > 0 ? FB_OK : FB_SIZE;
}

int32_t check(const fb_rows& c) {
  FB_REQUIRE(c.x && c.y && c.numbers, FB_NULL);
  FB_REQUIRE(product_of(c.outer, c.source, c.inner) > 0 && product_of(c.outer, c.count, c.inner) > 0, FB_SIZE);
  FB_REQUIRE((c.item == 1 || c.item == 2 || c.item == 4 || c.item == 8) && at_home(c.numbers, 8), FB_LAYOUT);
  return FB_OK;
}

int32_t check_numbers(const fb_rows& c) {
  for (int64_t i = 0; i < c.count; ++i) FB_REQUIRE(c.numbers[i] >= 0 && c.numbers[i] < c.source, FB_RANGE);
  return FB_OK;
}

int32_t check(const fb_threshold& c) {
  FB_REQUIRE(c.x && c.y && c.thresholds && c.direction && c.levels, FB_NULL);
  FB_REQUIRE(product_of(c.outer, c.rows, c.inner) > 0 && c.number >= 1 && c.number <= 255, FB_SIZE);
  FB_REQUIRE((c.type == FB_S32 || c.type == FB_F32) && at_home(c.x, 4) && at_home(c.thresholds, 4), FB_LAYOUT);
  return FB_OK;
}

int32_t check(const fb_dynamic& c) {
  FB_REQUIRE(c.x && c.codes && c.weight_scale && c.factor, FB_NULL);
  FB_REQUIRE(c.conv.x == c.codes && c.conv.x_type == FB_U8 && c.conv.rescale.kind == FB_REAL &&
                 c.conv.rescale.factor == c.factor && at_home(c.x, 4) && at_home(c.weight_scale, 4),
             FB_LAYOUT);
  FB_REQUIRE(c.weight_scales == 1 || c.weight_scales == c.conv.out_channels, FB_SIZE);
  FB_REQUIRE((c.weight_scales > 1) == (c.conv.rescale.per_channel != 0) || c.conv.out_channels == 1, FB_LAYOUT);
  return check_conv(c.conv);
}

int32_t check(const fb_binary& c) {
  FB_REQUIRE(c.x && c.y && c.weights && c.bias, FB_NULL);
  FB_TRY(check_windows(c));
  const int64_t depth = product_of(c.kernel_h, c.kernel_w, c.channels);
  FB_REQUIRE(depth > 0 && depth <= 1 << 24 && product_of(depth, c.columns) > 0, FB_SIZE);
  FB_REQUIRE(product_of(c.batch, out_h(c), out_w(c), c.columns) > 0, FB_SIZE);
  FB_REQUIRE((c.x_bits == 1 || c.x_bits == 2) && (c.w_bits == 1 || c.w_bits == 2) && at_home(c.weights, 8) && at_home(c.bias, 4) &&
                 at_home(c.outside, 4) && at_home(c.y, size_of(c.rescale.type)),
             FB_LAYOUT);
  FB_REQUIRE(c.x_first >= 0 && c.x_first + c.x_bits <= 8, FB_RANGE);
  for (const int32_t number : {c.x_low, c.x_step, c.w_low, c.w_step}) FB_REQUIRE(number >= -512 && number <= 512, FB_RANGE);
  return check_rescale(c.rescale, c.columns);
}

int32_t check(const fb_sparse& c) {
  FB_REQUIRE(c.x && c.y && c.bias, FB_NULL);
  FB_REQUIRE(product_of(c.rows, c.depth) > 0 && product_of(c.rows, c.columns) > 0 && product_of(c.columns, c.depth) > 0, FB_SIZE);
  FB_REQUIRE(at_home(c.bias, 4) && at_home(c.y, size_of(c.rescale.type)), FB_LAYOUT);
  if (c.counts) {
    FB_REQUIRE(c.steps && c.begins, FB_NULL);
    FB_REQUIRE(at_home(c.counts, 2) && at_home(c.begins, 8), FB_LAYOUT);
    const int64_t segments = (static_cast<int64_t>(c.depth) + 127) / 128, blocks = (static_cast<int64_t>(c.columns) + 15) / 16;
    FB_REQUIRE(c.begins[0] == 0, FB_RANGE);
    for (int64_t block = 0; block < blocks; ++block) {
      int64_t there = 0;
      for (int64_t segment = 0; segment < segments; ++segment) there += c.counts[block * segments + segment];
      FB_REQUIRE(c.begins[block] + there == c.begins[block + 1], FB_RANGE);
    }
    for (int64_t step = 0; step < c.begins[blocks]; ++step) {
      uint8_t all = 0;
      for (int64_t i = 0; i < 64; ++i) all |= c.steps[step * 128 + i];
      FB_REQUIRE(all < 128, FB_RANGE);
    }
    return check_rescale(c.rescale, c.columns);
  }
  FB_REQUIRE(c.starts && c.places && c.which && c.values, FB_NULL);
  FB_REQUIRE(c.depth <= 65536, FB_SIZE);
  FB_REQUIRE(at_home(c.starts, 4) && at_home(c.places, 2) && at_home(c.values, 2), FB_LAYOUT);
  FB_REQUIRE(c.starts[0] == 0, FB_RANGE);
  for (int32_t i = 0; i < c.columns; ++i) FB_REQUIRE(c.starts[i] <= c.starts[i + 1], FB_RANGE);
  for (int32_t i = 0; i < c.starts[c.columns]; ++i) FB_REQUIRE(c.places[i] < c.depth, FB_RANGE);
  return check_rescale(c.rescale, c.columns);
}

int32_t check(const fb_grouped& c) {
  FB_REQUIRE(c.x && c.y && c.weights, FB_NULL);
  FB_REQUIRE(product_of(c.rows, c.depth) > 0 && product_of(c.rows, c.columns) > 0, FB_SIZE);
  FB_REQUIRE(at_home(c.weights, 64) && at_home(c.factors, 4) && at_home(c.bias, 4) && at_home(c.y, size_of(c.rescale.type)), FB_LAYOUT);
  const Packed& h = *static_cast<const Packed*>(c.weights);
  FB_REQUIRE(h.magic == kMagic && h.kind == kFewBits && h.bits == c.bits && h.out_channels == c.columns && h.depth == c.depth &&
                 h.group == c.group,
             FB_LAYOUT);
  FB_REQUIRE(c.x_zero >= 0 && c.x_zero <= 255, FB_RANGE);
  if (c.group != c.depth) {
    FB_REQUIRE(c.factors, FB_NULL);
    FB_REQUIRE(c.rescale.kind == FB_REAL && !c.bias, FB_LAYOUT);
  }
  return check_rescale(c.rescale, c.columns);
}

int32_t check_slices(const fb_slice* slices, int64_t count) {
  FB_REQUIRE(count >= 0 && count <= 1 << 16, FB_SIZE);
  FB_REQUIRE(slices || count == 0, FB_NULL);
  for (int64_t i = 0; i < count; ++i) {
    const fb_slice& s = slices[i];
    FB_REQUIRE(s.from && s.to, FB_NULL);
    FB_REQUIRE(product_of(s.rows, s.bytes) > 0, FB_SIZE);
    for (const int64_t step : {s.from_row, s.to_row, s.from_turn, s.to_turn}) FB_REQUIRE(step > -kMost && step < kMost, FB_SIZE);
  }
  return FB_OK;
}

int32_t check(const fb_repeat& c) {
  FB_REQUIRE(c.calls, FB_NULL);
  FB_REQUIRE(c.count >= 1 && c.count <= 1 << 16 && product_of(c.turns) > 0, FB_SIZE);
  FB_TRY(check_slices(c.before, c.before_count));
  FB_TRY(check_slices(c.after, c.after_count));
  for (int64_t i = 0; i < c.count; ++i) {
    FB_REQUIRE(c.calls[i], FB_NULL);
    FB_REQUIRE(at_home(c.calls[i], 8) && *static_cast<const int32_t*>(c.calls[i]) != FB_REPEAT, FB_LAYOUT);
    const int64_t needed = fb_scratch(c.calls[i], 1);
    FB_REQUIRE(needed >= 0, static_cast<int32_t>(-needed));
  }
  return FB_OK;
}

int64_t scratch_of(const fb_repeat& c, int32_t threads) {
  int64_t most = 0;
  for (int64_t i = 0; i < c.count; ++i) {
    const int64_t needed = fb_scratch(c.calls[i], threads);
    most = needed > most ? needed : most;
  }
  return most;
}

void copy_slices(const fb_slice* slices, int64_t count, int64_t turn) {
  for (int64_t i = 0; i < count; ++i) {
    const fb_slice& s = slices[i];
    const uint8_t* from = static_cast<const uint8_t*>(s.from) + turn * s.from_turn;
    uint8_t* to = static_cast<uint8_t*>(s.to) + turn * s.to_turn;
    for (int64_t row = 0; row < s.rows; ++row) std::memcpy(to + row * s.to_row, from + row * s.from_row, static_cast<size_t>(s.bytes));
  }
}

int64_t scratch_of(const fb_sparse& c) {  // rows filled up to whole segments
  return c.counts && c.depth % 128 ? aligned(static_cast<int64_t>(c.rows) * ((static_cast<int64_t>(c.depth) + 127) / 128 * 128)) : 0;
}

int64_t scratch_of(const fb_grouped& c) {  // rows filled up to whole steps
  return c.depth % 32 ? aligned(static_cast<int64_t>(c.rows) * ((c.depth + 31) / 32 * 32)) : 0;
}

// The bits of all lines, and of so many pixels of the output as stay in the second-level cache.
struct Bits {
  int64_t lines, pixels, some;  // some: pixels at once
  int64_t lines_bytes, planes_bytes;
};

Bits prepared(const fb_binary& c) {
  constexpr int64_t kCache = 192 << 10;
  const int64_t of_pixel = c.x_bits * fb_binary_words(&c) * 8;
  Bits b{};
  b.lines = static_cast<int64_t>(c.batch) * (static_cast<int64_t>(c.height) + c.top + c.bottom);
  b.pixels = static_cast<int64_t>(c.batch) * out_h(c) * out_w(c);
  b.some = kCache / of_pixel < 16 ? 16 : kCache / of_pixel;
  if (b.some > b.pixels) b.some = b.pixels;
  b.lines_bytes = aligned(b.lines * c.x_bits * fb_words_of_line(&c) * 8);
  b.planes_bytes = aligned(b.some * of_pixel);
  return b;
}

int64_t scratch_of(const fb_binary& c) {
  const Bits b = prepared(c);
  return b.lines_bytes + b.planes_bytes + aligned(b.some * static_cast<int64_t>(sizeof(fb_pixel)));
}

void run_binary(const fb_binary& c, int32_t threads, uint8_t* scratch) {
  const Kernels& k = kernels();
  const Bits b = prepared(c);
  const int64_t blocks = (c.columns + 7) / 8, words = fb_binary_words(&c);
  uint64_t* lines = reinterpret_cast<uint64_t*>(scratch);
  fb_covered some{reinterpret_cast<uint64_t*>(scratch + b.lines_bytes), reinterpret_cast<fb_pixel*>(scratch + b.lines_bytes + b.planes_bytes), 0};
  const int64_t line = fb_words_of_line(&c) * 64;
  parallel(threads, b.lines, (kGrain + line - 1) / line, 1, [&](int64_t from, int64_t to) { k.lines(&c, lines, from, to); });
  const int64_t of_pixel = words * 64 * c.x_bits, work = words * 8 * c.x_bits * c.w_bits;
  for (; some.first < b.pixels; some.first += b.some) {
    const int64_t begin = some.first, end = b.pixels - begin < b.some ? b.pixels : begin + b.some;
    parallel(threads, end - begin, (kGrain + of_pixel - 1) / of_pixel, 1,
             [&](int64_t from, int64_t to) { k.covered(&c, lines, &some, begin + from, begin + to); });
    if (blocks >= 4 * threads) {
      const int64_t grain = (kGrain / 2 + (end - begin) * work - 1) / ((end - begin) * work);
      parallel(threads, blocks, grain, 4, [&](int64_t from, int64_t to) { k.binary(&c, &some, begin, end, from, to); });
    } else {
      const int64_t grain = (kGrain / 2 + blocks * work - 1) / (blocks * work);
      parallel(threads, end - begin, grain, 4,
               [&](int64_t from, int64_t to) { k.binary(&c, &some, begin + from, begin + to, 0, blocks); });
    }
  }
}

// Of the only line of a pair the codes [begin, end).
fb_pair part_of(const fb_pair& c, int64_t begin, int64_t end) {
  const int32_t last = c.axes - 1;
  fb_pair some = c;
  some.a = static_cast<const uint8_t*>(c.a) + begin * c.step_a[last] * size_of(c.a_type);
  some.b = static_cast<const uint8_t*>(c.b) + begin * c.step_b[last] * size_of(c.b_type);
  some.y = static_cast<uint8_t*>(c.y) + begin * size_of(c.y_type);
  some.sizes[last] = end - begin;
  return some;
}

// next: the convolution behind it, or null.
int32_t run_one(const void* call, int32_t threads, uint8_t* scratch, const fb_conv* next) {
  const Kernels& k = kernels();
#define FB_PARTS(count, grain, name) \
  parallel(threads, count, grain, 1, [&](int64_t b, int64_t e) { k.name(&c, b, e); })
  switch (*static_cast<const int32_t*>(call)) {
    case FB_CONV:
      run_conv(*static_cast<const fb_conv*>(call), threads, scratch, next);
      break;
    case FB_MATMUL:
      run_matmul(*static_cast<const fb_matmul*>(call), threads, scratch);
      break;
    case FB_PAIR: {
      const auto& c = *static_cast<const fb_pair*>(call);
      const int64_t run = c.sizes[c.axes - 1], lines = lines_of(c);
      if (lines > 1) {
        FB_PARTS(lines, (kGrain + run - 1) / run, pair);
        break;
      }
      parallel(threads, run, kGrain, kLine, [&](int64_t b, int64_t e) {
        const fb_pair some = part_of(c, b, e);
        k.pair(&some, 0, 1);
      });
      break;
    }
    case FB_TABLE: {
      const auto& c = *static_cast<const fb_table*>(call);
      parallel(threads, c.count, 4 * kGrain, kLine, [&](int64_t b, int64_t e) { k.table(&c, b, e); });
      break;
    }
    case FB_POOL: {
      const auto& c = *static_cast<const fb_pool*>(call);
      const int64_t run = static_cast<int64_t>(out_w(c)) * c.channels;
      FB_PARTS(static_cast<int64_t>(c.batch) * out_h(c), (kGrain + run - 1) / run, pool);
      break;
    }
    case FB_MEAN: {
      const auto& c = *static_cast<const fb_mean*>(call);
      FB_PARTS(c.outer, (kGrain + c.length * c.inner - 1) / (c.length * c.inner), mean);
      break;
    }
    case FB_SOFTMAX: {
      const auto& c = *static_cast<const fb_softmax*>(call);
      FB_PARTS(c.rows, (kGrain / 8 + c.length - 1) / c.length, softmax);
      break;
    }
    case FB_NORM: {
      const auto& c = *static_cast<const fb_norm*>(call);
      FB_PARTS(c.rows, (kGrain / 8 + c.length - 1) / c.length, norm);
      break;
    }
    case FB_QUANTIZE: {
      const auto& c = *static_cast<const fb_quantize*>(call);
      parallel(threads, c.count, kGrain, kLine, [&](int64_t b, int64_t e) { k.quantize(&c, b, e); });
      break;
    }
    case FB_DEQUANTIZE: {
      const auto& c = *static_cast<const fb_dequantize*>(call);
      FB_PARTS(c.count / c.channels, (kGrain + c.channels - 1) / c.channels, dequantize);
      break;
    }
    case FB_MOVE: {
      const auto& c = *static_cast<const fb_move*>(call);
      int64_t run = 1;
      for (int32_t axis = 1; axis < c.axes; ++axis) run *= c.sizes[axis];
      FB_PARTS(c.sizes[0], (kGrain + run - 1) / run, move);
      break;
    }
    case FB_ROWS: {
      const auto& c = *static_cast<const fb_rows*>(call);
      FB_TRY(check_numbers(c));
      FB_PARTS(c.outer * c.count, (kGrain + c.inner - 1) / c.inner, rows);
      break;
    }
    case FB_THRESHOLD: {
      const auto& c = *static_cast<const fb_threshold*>(call);
      FB_PARTS(c.outer * c.rows, (kGrain + c.inner - 1) / c.inner, threshold);
      break;
    }
    case FB_DYNAMIC: {
      const auto& c = *static_cast<const fb_dynamic*>(call);
      const int64_t count = static_cast<int64_t>(c.conv.batch) * c.conv.height * c.conv.width * c.conv.channels;
      float low = 0.0f, high = 0.0f;
      FB_REQUIRE(!k.range(c.x, count, &low, &high), FB_RANGE);
      const float scale = low == high ? 1.0f : (high - low) / 255.0f;
      FB_REQUIRE(std::isfinite(scale), FB_RANGE);
      fb_conv conv = c.conv;
      conv.x_zero = 0;
      if (scale > 0.0f) {
        float zero = -low / scale;
        zero = zero < 0.0f ? 0.0f : zero > 255.0f ? 255.0f : zero;
        conv.x_zero = static_cast<int32_t>(std::nearbyintf(zero));
        fb_quantize quantize{};
        quantize.op = FB_QUANTIZE;
        quantize.x = c.x;
        quantize.y = c.codes;
        quantize.count = count;
        quantize.scale = scale;
        quantize.zero = conv.x_zero;
        quantize.high = 255;
        parallel(threads, count, kGrain, kLine, [&](int64_t b, int64_t e) { k.quantize(&quantize, b, e); });
      } else {
        std::memset(c.codes, 0, static_cast<size_t>(count));
      }
      for (int32_t i = 0; i < c.weight_scales; ++i) c.factor[i] = scale * c.weight_scale[i];
      run_conv(conv, threads, scratch, next);
      break;
    }
    case FB_BINARY:
      run_binary(*static_cast<const fb_binary*>(call), threads, scratch);
      break;
    case FB_SPARSE: {
      const auto& c = *static_cast<const fb_sparse*>(call);
      const uint8_t* x = c.x;
      int64_t step = c.depth;
      if (c.counts && c.depth % 128) {
        step = (step + 127) / 128 * 128;
        std::memset(scratch, 0, static_cast<size_t>(c.rows * step));
        for (int64_t row = 0; row < c.rows; ++row) std::memcpy(scratch + row * step, c.x + row * c.depth, static_cast<size_t>(c.depth));
        x = scratch;
      }
      parallel(threads, (static_cast<int64_t>(c.columns) + 15) / 16, 4, 1, [&](int64_t b, int64_t e) { k.sparse(&c, x, step, b, e); });
      break;
    }
    case FB_GROUPED: {
      fb_grouped c = *static_cast<const fb_grouped*>(call);
      const int64_t padded = (c.depth + 31) / 32 * 32;
      if (c.depth % 32) {  // the parts read whole steps
        std::memset(scratch, 0, static_cast<size_t>(c.rows * padded));
        for (int64_t row = 0; row < c.rows; ++row) std::memcpy(scratch + row * padded, c.x + row * c.depth, static_cast<size_t>(c.depth));
        c.x = scratch;
      }
      FB_PARTS((c.columns + 15) / 16, 4, grouped);
      break;
    }
    case FB_REPEAT: {
      const auto& c = *static_cast<const fb_repeat*>(call);
      for (int64_t turn = 0; turn < c.turns; ++turn) {
        copy_slices(c.before, c.before_count, turn);
        for (int64_t i = 0; i < c.count; ++i) FB_TRY(run_one(c.calls[i], threads, scratch, nullptr));
        copy_slices(c.after, c.after_count, turn);
      }
      break;
    }
    default:
      return FB_LAYOUT;
  }
  return FB_OK;
#undef FB_PARTS
}

template <typename Call>
int64_t checked(const void* call) {
  const int32_t wrong = check(*static_cast<const Call*>(call));
  return wrong ? -wrong : 0;
}

template <typename Call>
int64_t checked_scratch(const void* call) {
  const int64_t wrong = checked<Call>(call);
  return wrong ? wrong : scratch_of(*static_cast<const Call*>(call));
}

}  // namespace
}  // namespace fb

int64_t fb_scratch(const void* call, int32_t threads) {
  if (!call) return -FB_NULL;
  if (reinterpret_cast<uintptr_t>(call) % 8) return -FB_LAYOUT;
  switch (*static_cast<const int32_t*>(call)) {
    case FB_CONV: {
      const auto& c = *static_cast<const fb_conv*>(call);
      const int32_t wrong = fb::check_conv(c);
      return wrong ? -wrong : fb::scratch_of(c, threads);
    }
    case FB_MATMUL:
      return fb::checked_scratch<fb_matmul>(call);
    case FB_PAIR:
      return fb::checked<fb_pair>(call);
    case FB_TABLE:
      return fb::checked<fb_table>(call);
    case FB_POOL:
      return fb::checked<fb_pool>(call);
    case FB_MEAN:
      return fb::checked<fb_mean>(call);
    case FB_SOFTMAX:
      return fb::checked<fb_softmax>(call);
    case FB_NORM:
      return fb::checked<fb_norm>(call);
    case FB_QUANTIZE:
      return fb::checked<fb_quantize>(call);
    case FB_DEQUANTIZE:
      return fb::checked<fb_dequantize>(call);
    case FB_MOVE:
      return fb::checked<fb_move>(call);
    case FB_ROWS:
      return fb::checked<fb_rows>(call);
    case FB_THRESHOLD:
      return fb::checked<fb_threshold>(call);
    case FB_DYNAMIC: {
      const int64_t wrong = fb::checked<fb_dynamic>(call);
      return wrong ? wrong : fb::scratch_of(static_cast<const fb_dynamic*>(call)->conv, threads);
    }
    case FB_BINARY:
      return fb::checked_scratch<fb_binary>(call);
    case FB_SPARSE:
      return fb::checked_scratch<fb_sparse>(call);
    case FB_GROUPED:
      return fb::checked_scratch<fb_grouped>(call);
    case FB_REPEAT: {
      const int64_t wrong = fb::checked<fb_repeat>(call);
      return wrong ? wrong : fb::scratch_of(*static_cast<const fb_repeat*>(call), threads);
    }
    default:
      return -FB_LAYOUT;
  }
}

namespace fb {
namespace {

// The first convolution from calls[from] on; the number of calls where there is none, or they are still to be checked.
int64_t next_conv(const fb_batch& batch, int64_t from) {
  if (!batch.checked) return batch.count;
  while (from < batch.count && *static_cast<const int32_t*>(batch.calls[from]) != FB_CONV) ++from;
  return from;
}

}  // namespace
}  // namespace fb

int32_t fb_run(fb_batch* batch) {
  if (!batch || !batch->calls) return FB_NULL;
  if (batch->count < 0) return FB_SIZE;
  const int32_t threads = fb::threads_of_call(batch->threads);
  const fb::Batch awake(threads);
  int64_t next = 0;
  for (int64_t i = 0; i < batch->count; ++i) {
    const void* call = batch->calls[i];
    batch->failed = i;
    if (!batch->checked) {
      const int64_t needed = fb_scratch(call, threads);
      if (needed < 0) return static_cast<int32_t>(-needed);
      const bool right = batch->scratch && needed <= batch->scratch_bytes && reinterpret_cast<uintptr_t>(batch->scratch) % 64 == 0;
      if (needed > 0 && !right) return FB_SCRATCH;
    }
    if (next <= i) next = fb::next_conv(*batch, i + 1);
    const fb_conv* const behind = next < batch->count ? static_cast<const fb_conv*>(batch->calls[next]) : nullptr;
    const int32_t wrong = fb::run_one(call, threads, static_cast<uint8_t*>(batch->scratch), behind);
    if (wrong) return wrong;
  }
  batch->failed = batch->count;
  return FB_OK;
}

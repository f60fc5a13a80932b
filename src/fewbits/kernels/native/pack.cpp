// Weights brought into the order in which the inner loops read them.
#include "packed.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace fb {
namespace {

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

int32_t weight(const fb_conv& c, int64_t at) {
  return c.weight_type == FB_S16 ? static_cast<const int16_t*>(c.weights)[at] : static_cast<const int8_t*>(c.weights)[at];
}

// Whether every sum of the wide form fits 32 bits, whatever the codes.
bool fits(const fb_conv& c) {
  if (c.x_type != FB_S16) return true;
  const int64_t taps = static_cast<int64_t>(c.channels / c.groups) * c.kernel_h * c.kernel_w;
  for (int64_t o = 0; o < c.out_channels; ++o) {
    int64_t sum = c.bias ? std::llabs(c.bias[o]) : 0;
    for (int64_t k = 0; k < taps; ++k) sum += static_cast<int64_t>(std::abs(weight(c, o * taps + k))) * 65535;
    if (sum > INT32_MAX) return false;
  }
  return true;
}

// The codes of one step, of one column: those of the run behind its end are 0.
void step_of(const fb_conv& c, const Runs& runs, int64_t channel, int32_t ky, int32_t kx, int32_t s, int32_t per_step,
             int32_t* out) {
  const int32_t depth = c.channels / c.groups;
  const int64_t taps = static_cast<int64_t>(depth) * c.kernel_h * c.kernel_w;
  const int64_t start = channel * taps + (static_cast<int64_t>(ky) * c.kernel_w + kx) * depth;
  for (int32_t t = 0; t < per_step; ++t) {
    const int32_t code = s * per_step + t;
    out[t] = code < runs.codes ? weight(c, start + code) : 0;
  }
}

// Takes from two neighbours what would saturate; the rest, which goes into an extra step.
int32_t take(int32_t* pair, int32_t* rest) {
  rest[0] = rest[1] = 0;
  if ((pair[0] > 0) != (pair[1] > 0) || !pair[0] || !pair[1]) return 0;
  const int32_t excess = std::abs(pair[0]) + std::abs(pair[1]) - 128;  // 255 · 128 fits 16 bits
  if (excess <= 0) return 0;
  const int32_t larger = std::abs(pair[1]) > std::abs(pair[0]);
  rest[larger] = pair[larger] > 0 ? excess : -excess;
  pair[larger] -= rest[larger];
  return excess;
}

// What every packing of a convolution says of it.
Packed header(const fb_conv& c, decltype(Packed::kind) kind, int32_t blocks) {
  Packed h{};
  h.magic = kMagic;
  h.kind = kind;
  h.level = level();
  h.out_channels = c.out_channels;
  h.depth = c.channels / c.groups;
  h.kernel_h = c.kernel_h;
  h.kernel_w = c.kernel_w;
  h.groups = c.groups;
  h.blocks = blocks;
  h.weight_sums = aligned(sizeof(Packed));
  return h;
}

// Lays out a dense packing, `wide` in words of 16 bits; with `out` null only counts, and extra steps into `more`.
int64_t dense(const fb_conv& c, bool wide, uint8_t* out, int64_t* more = nullptr) {
  const Runs runs = runs_of(c, wide);
  const bool pairs = kernels().pairs && !wide;
  const int32_t per_step = wide ? 2 : 4, columns = c.out_channels / c.groups, blocks = (columns + 15) / 16;
  const int64_t all = static_cast<int64_t>(blocks) * c.groups, steps = static_cast<int64_t>(runs.y) * runs.x * runs.steps;
  Packed h = header(c, kDense, blocks);
  h.runs_y = runs.y;
  h.runs_x = runs.x;
  h.steps_of_run = runs.steps;
  h.wide = wide;
  h.steps = h.weight_sums + aligned(all * 64);
  int64_t extras = 0;
  // Twice where extras are written: their number says where they go.
  for (int32_t pass = 0; pass < (out ? 2 : 1); ++pass) {
    const int64_t behind = h.steps + all * steps * 64;
    if (pairs) {
      h.extra_first = behind;
      h.extra_place = aligned(h.extra_first + (2 * all + 1) * 4);
      h.extra = aligned(h.extra_place + extras * 8);
    }
    h.bytes = pairs ? h.extra + extras * 32 : behind;
    const bool write = pass == 1;
    int64_t extra = 0;
    for (int64_t block = 0; block < all; ++block) {
      const int64_t group = block / blocks;
      int32_t sums[16] = {0};
      for (int32_t half = 0; half < 2; ++half) {
        if (write && pairs) reinterpret_cast<int32_t*>(out + h.extra_first)[2 * block + half] = static_cast<int32_t>(extra);
        for (int64_t t = 0; t < steps; ++t) {
          const int32_t run = static_cast<int32_t>(t / runs.steps), s = static_cast<int32_t>(t % runs.steps);
          const int32_t ky = run / runs.x, kx = run % runs.x;
          int8_t rests[32] = {0};
          bool any = false;
          for (int32_t i = 0; i < 8; ++i) {
            const int32_t j = 8 * half + i, column = static_cast<int32_t>(block % blocks) * 16 + j;
            int32_t codes[4] = {0}, rest[4] = {0};
            if (column < columns) step_of(c, runs, group * columns + column, ky, kx, s, per_step, codes);
            for (int32_t k = 0; k < per_step; ++k) sums[j] += codes[k];
            if (pairs) {
              any |= take(codes, rest) > 0;
              any |= take(codes + 2, rest + 2) > 0;
              for (int32_t k = 0; k < 4; ++k) rests[4 * i + k] = static_cast<int8_t>(rest[k]);
            }
            if (!write) continue;
            uint8_t* to = out + h.steps + (block * steps + t) * 64 + 4 * j;
            for (int32_t k = 0; k < per_step; ++k) {
              if (wide) {
                const int16_t v = static_cast<int16_t>(codes[k]);
                std::memcpy(to + 2 * k, &v, 2);
              } else {
                to[k] = static_cast<uint8_t>(codes[k]);
              }
            }
          }
          if (!any) continue;
          if (write) {
            int32_t* place = reinterpret_cast<int32_t*>(out + h.extra_place) + 2 * extra;
            place[0] = ky << 16 | kx;
            place[1] = s;
            std::memcpy(out + h.extra + 32 * extra, rests, 32);
          }
          ++extra;
        }
      }
      if (write) std::memcpy(out + h.weight_sums + block * 64, sums, 64);
    }
    if (write && pairs) reinterpret_cast<int32_t*>(out + h.extra_first)[2 * all] = static_cast<int32_t>(extra);
    extras = extra;
    if (!out && pairs) {
      h.extra_place = aligned(h.extra_first + (2 * all + 1) * 4);
      h.bytes = aligned(h.extra_place + extras * 8) + extras * 32;
    }
  }
  if (out) std::memcpy(out, &h, sizeof h);
  if (more) *more = extras;
  return h.bytes;
}

// Bits that tell the weights of a dense packing from each other, the zeros that fill up its runs with them; 0 for more than
// four, and where the level has no tiles.
int32_t few_bits_of(const fb_conv& c) {
  const int64_t taps = static_cast<int64_t>(c.channels / c.groups) * c.kernel_h * c.kernel_w, count = taps * c.out_channels;
  if (c.layout != FB_FEW || !kernels().tiles || is_wide(c) || c.groups != 1) return 0;
  bool seen[256] = {false};
  const Runs runs = runs_of(c, false);
  if (4 * runs.steps != runs.codes) seen[128] = true;
  for (int64_t i = 0; i < count; ++i) seen[128 + weight(c, i)] = true;
  int32_t number = 0;
  for (const bool there : seen) number += there;
  return number <= 2 ? 1 : number <= 4 ? 2 : number <= 16 ? 4 : 0;
}

// The same as `dense`, of 1, 2 or 4 bits: byte i of a step, in the order of 64 bytes, is field i / (8 bits) of byte
// i modulo (8 bits).
int64_t few(const fb_conv& c, int32_t bits, uint8_t* out) {
  const Runs runs = runs_of(c, false);
  const int32_t blocks = (c.out_channels + 15) / 16, chunk = 8 * bits;
  const int64_t steps = static_cast<int64_t>(runs.y) * runs.x * runs.steps;
  Packed h = header(c, kDense, blocks);
  h.runs_y = runs.y;
  h.runs_x = runs.x;
  h.steps_of_run = runs.steps;
  h.bits = bits;
  h.steps = h.weight_sums + blocks * 64;
  h.bytes = h.steps + blocks * steps * chunk;
  if (!out) return h.bytes;
  std::memset(out, 0, static_cast<size_t>(h.bytes));
  int32_t number = 0, place[256];
  for (int32_t v = 0; v < 256; ++v) place[v] = -1;
  for (int64_t block = 0; block < blocks; ++block) {
    int32_t sums[16] = {0};
    for (int64_t t = 0; t < steps; ++t) {
      const int32_t run = static_cast<int32_t>(t / runs.steps), s = static_cast<int32_t>(t % runs.steps);
      uint8_t* to = out + h.steps + (block * steps + t) * chunk;
      for (int32_t j = 0; j < 16 && block * 16 + j < c.out_channels; ++j) {
        int32_t codes[4];
        step_of(c, runs, block * 16 + j, run / runs.x, run % runs.x, s, 4, codes);
        for (int32_t k = 0; k < 4; ++k) {
          sums[j] += codes[k];
          int32_t& at = place[128 + codes[k]];
          if (at < 0) {
            at = number++;
            h.values[at] = static_cast<int8_t>(codes[k]);
          }
          to[(4 * j + k) % chunk] |= static_cast<uint8_t>(at << (4 * j + k) / chunk * bits);
        }
      }
    }
    std::memcpy(out + h.weight_sums + block * 64, sums, 64);
  }
  for (int32_t v = 1 << bits; v < 256; ++v) h.values[v] = h.values[v % (1 << bits)];
  std::memcpy(out, &h, sizeof h);
  return h.bytes;
}

// Whether weights are packed as words though they are bytes: where pairs of products saturate and so many extra steps would
// be needed that products of words, each half as long and without them, take less time. Not for a few pixels, for which
// reading the weights is what takes time.
bool in_words(const fb_conv& c) {
  if (is_wide(c)) return true;
  const int64_t pixels = static_cast<int64_t>(c.batch) * ((c.height + c.top + c.bottom - c.dilation_h * (c.kernel_h - 1) - 1) / c.stride_h + 1) *
                         ((c.width + c.left + c.right - c.dilation_w * (c.kernel_w - 1) - 1) / c.stride_w + 1);
  if (!kernels().pairs || pixels < 8) return false;
  const Runs bytes = runs_of(c, false), words = runs_of(c, true);
  const int64_t blocks = static_cast<int64_t>((c.out_channels / c.groups + 15) / 16) * c.groups * bytes.y * bytes.x;
  int64_t extras = 0;
  dense(c, false, nullptr, &extras);
  return 0.6 * static_cast<double>(2 * blocks * words.steps) < static_cast<double>(2 * blocks * bytes.steps + extras);
}

int32_t tap_weight(const fb_conv& c, int32_t channel, int32_t tap) {
  return channel < c.channels && tap < c.kernel_h * c.kernel_w
             ? weight(c, static_cast<int64_t>(channel) * c.kernel_h * c.kernel_w + tap)
             : 0;
}

int64_t depthwise(const fb_conv& c, uint8_t* out) {
  const int32_t taps = c.kernel_h * c.kernel_w, blocks = (c.channels + 15) / 16;
  const int32_t bytes64 = (taps + 3) / 4 * 256, bytes16 = (taps + 1) / 2 * 64;
  const int32_t whole = has_512_bits() ? c.channels / 64 : 0;
  Packed h = header(c, kDepthwise, blocks);
  h.steps = h.weight_sums + blocks * 64;
  h.bytes = h.steps + static_cast<int64_t>(whole) * bytes64 + static_cast<int64_t>(blocks - 4 * whole) * bytes16;
  if (!out) return h.bytes;
  std::memcpy(out, &h, sizeof h);
  for (int32_t channel = 0; channel < 16 * blocks; ++channel) {
    int32_t sum = 0;
    for (int32_t tap = 0; tap < taps; ++tap) sum += tap_weight(c, channel, tap);
    std::memcpy(out + h.weight_sums + 4 * channel, &sum, 4);
  }
  uint8_t* to = out + h.steps;
  for (int32_t block = 0; block < whole; ++block) {  // depthwise.cpp, channel64
    for (int32_t quad = 0; quad < (taps + 3) / 4; ++quad) {
      for (int32_t j = 0; j < 4; ++j) {
        for (int32_t e = 0; e < 16; ++e) {
          for (int32_t t = 0; t < 4; ++t) {
            *to++ = static_cast<uint8_t>(tap_weight(c, 64 * block + e / 4 * 16 + 4 * j + e % 4, 4 * quad + t));
          }
        }
      }
    }
  }
  for (int32_t block = 4 * whole; block < blocks; ++block) {  // channel16
    for (int32_t pair = 0; pair < (taps + 1) / 2; ++pair) {
      for (int32_t j = 0; j < 2; ++j) {
        for (int32_t e = 0; e < 8; ++e) {
          for (int32_t t = 0; t < 2; ++t) {
            const int16_t v = static_cast<int16_t>(tap_weight(c, 16 * block + e / 4 * 8 + 4 * j + e % 4, 2 * pair + t));
            std::memcpy(to, &v, 2);
            to += 2;
          }
        }
      }
    }
  }
  return h.bytes;
}

// Whether 36 products of 16 bits for 16 pixels take less time than 144 of 8: by cycles of one thread, measured roughly, and
// the bytes of weights that they wait for.
bool is_faster(const fb_conv& c) {
  const double pixels = static_cast<double>(c.height + c.top + c.bottom - 2) * (c.width + c.left + c.right - 2);
  const double tiles = std::ceil((c.height + c.top + c.bottom - 2) / 4.0) * std::ceil((c.width + c.left + c.right - 2) / 4.0);
  const double deep = (c.channels + 15) / 16 * 16, outs = (c.out_channels + 15) / 16 * 16;
  const double bytes = level() == kAvxVnni ? 60 : 28;  // products a cycle
  const double words = level() == kAvxVnni ? 30 : 25;
  const double direct = pixels * 9 * c.channels * outs / bytes;
  const double products = tiles * 36 * deep * outs / words, reading = 72 * deep * outs / 8;
  const double around = tiles * (6 * deep + 12 * outs);
  return 1.1 * ((products > reading ? products : reading) + around) < direct;
}

// Sums of products of codes as they are, from 0 to 255, must stay below 2^25.
bool fits_winograd(const fb_conv& c) {
  const int64_t taps = static_cast<int64_t>(c.channels) * 9;
  for (int64_t o = 0; o < c.out_channels; ++o) {
    int64_t above = 0, below = 0;
    for (int64_t k = 0; k < taps; ++k) {
      const int32_t w = weight(c, o * taps + k);
      (w > 0 ? above : below) += w;
    }
    if (255 * above >= 1 << 25 || 255 * below <= -(1 << 25)) return false;
  }
  return true;
}

bool as_winograd(const fb_conv& c) {
  return kernels().winograd_in && is_3x3(c) && c.channels >= 8 && is_faster(c) && fits_winograd(c);
}

// Three weights to six: rows of G, whole.
void spread(const int32_t* w, int32_t* out) {
  out[0] = w[0];
  out[1] = w[0] + w[1] + w[2];
  out[2] = w[0] - w[1] + w[2];
  out[3] = w[0] + 2 * w[1] + 4 * w[2];
  out[4] = w[0] - 2 * w[1] + 4 * w[2];
  out[5] = w[2];
}

// [36][blocks][depth / 2][16 columns, 2 channels] of int16.
int64_t winograd(const fb_conv& c, uint8_t* out) {
  const int32_t blocks = (c.out_channels + 15) / 16, depth = (c.channels + 15) / 16 * 16;
  const int64_t of_product = static_cast<int64_t>(blocks) * depth * 32;
  Packed h = header(c, kWinograd, blocks);
  h.runs_y = h.runs_x = 1;
  h.steps_of_run = depth / 2;
  h.wide = 1;
  h.steps = h.weight_sums + blocks * 64;
  h.bytes = h.steps + 36 * of_product;
  if (!out) return h.bytes;
  std::memset(out, 0, static_cast<size_t>(h.bytes));
  std::memcpy(out, &h, sizeof h);
  for (int32_t o = 0; o < c.out_channels; ++o) {
    int32_t sum = 0;
    for (int32_t k = 0; k < c.channels; ++k) {
      int32_t rows[3][6], columns[6][6];
      for (int32_t y = 0; y < 3; ++y) {
        int32_t w[3];
        for (int32_t x = 0; x < 3; ++x) {
          w[x] = weight(c, ((static_cast<int64_t>(o) * 3 + y) * 3 + x) * c.channels + k);
          sum += w[x];
        }
        spread(w, rows[y]);
      }
      for (int32_t x = 0; x < 6; ++x) {
        const int32_t w[3] = {rows[0][x], rows[1][x], rows[2][x]};
        spread(w, columns[x]);
      }
      uint8_t* to = out + h.steps + (static_cast<int64_t>(o / 16) * (depth / 2) + k / 2) * 64 + o % 16 * 4 + k % 2 * 2;
      for (int32_t y = 0; y < 6; ++y) {
        for (int32_t x = 0; x < 6; ++x) {
          const int16_t v = static_cast<int16_t>(columns[x][y]);
          std::memcpy(to + (6 * y + x) * of_product, &v, 2);
        }
      }
    }
    std::memcpy(out + h.weight_sums + 4 * o, &sum, 4);
  }
  return h.bytes;
}

}  // namespace
}  // namespace fb

int64_t fb_packed_bytes(const fb_conv* conv) {
  if (!conv) return -FB_NULL;
  fb_conv plain = *conv;
  plain.layout = FB_PLAIN;
  const int32_t wrong = fb::check_conv(plain);
  if (wrong) return -wrong;
  const fb::Kernels& k = fb::kernels();
  if (fb::is_depthwise(*conv) && k.depthwise) return fb::depthwise(*conv, nullptr);
  if (!k.product || !fb::fits(*conv) || conv->kernel_h > 0x7FFF || conv->kernel_w > 0xFFFF) return 0;
  if (conv->x_type == FB_U8 && conv->weight_type != FB_S8 && conv->weight_type != FB_S16) return -FB_LAYOUT;
  if (fb::as_winograd(*conv)) return fb::winograd(*conv, nullptr);
  const int32_t bits = fb::few_bits_of(*conv);
  return bits ? fb::few(*conv, bits, nullptr) : fb::dense(*conv, fb::in_words(*conv), nullptr);
}

int32_t fb_pack(const fb_conv* conv, void* packed, int64_t bytes) {
  const int64_t needed = fb_packed_bytes(conv);
  if (needed < 0) return static_cast<int32_t>(-needed);
  if (!packed) return FB_NULL;
  if (needed == 0 || reinterpret_cast<uintptr_t>(packed) % 64) return FB_LAYOUT;
  if (bytes < needed) return FB_SIZE;
  if (fb::is_depthwise(*conv) && fb::kernels().depthwise) {
    fb::depthwise(*conv, static_cast<uint8_t*>(packed));
  } else if (fb::as_winograd(*conv)) {
    fb::winograd(*conv, static_cast<uint8_t*>(packed));
  } else if (const int32_t bits = fb::few_bits_of(*conv)) {
    fb::few(*conv, bits, static_cast<uint8_t*>(packed));
  } else {
    fb::dense(*conv, fb::in_words(*conv), static_cast<uint8_t*>(packed));
  }
  return FB_OK;
}

// Few-bit weights: blocks of 16 columns, each group by group; in steps of 32 / bits codes of each column, whose byte t holds
// codes t, t + 4, t + 8, ... from its low bits on.
int64_t fb_grouped_bytes(int32_t bits, int64_t columns, int64_t depth, int64_t group) {
  if (bits != 1 && bits != 2 && bits != 4 && bits != 8) return -FB_LAYOUT;
  if (columns < 1 || depth < 1 || group < 1 || columns > INT32_MAX || depth > INT32_MAX || group > depth) return -FB_SIZE;
  if (group != depth && (group % 32 || depth % group)) return -FB_LAYOUT;
  const int64_t blocks = (columns + 15) / 16, groups = depth / group, padded = (group + 31) / 32 * 32;
  return (sizeof(fb::Packed) + 63) / 64 * 64 + blocks * groups * 64 + blocks * groups * padded * 2 * bits;
}

int32_t fb_pack_grouped(const uint8_t* codes, const int8_t* values, int32_t bits, int64_t columns, int64_t depth, int64_t group,
                        void* packed, int64_t bytes) {
  const int64_t needed = fb_grouped_bytes(bits, columns, depth, group);
  if (needed < 0) return static_cast<int32_t>(-needed);
  if (!codes || !values || !packed) return FB_NULL;
  if (bytes < needed) return FB_SIZE;
  if (reinterpret_cast<uintptr_t>(packed) % 64) return FB_LAYOUT;
  const int32_t most = 1 << bits, per_byte = 8 / bits, step = 4 * per_byte;
  for (int64_t i = 0; i < columns * depth; ++i) {
    if (codes[i] >= most) return FB_RANGE;
  }
  uint8_t* out = static_cast<uint8_t*>(packed);
  std::memset(out, 0, static_cast<size_t>(needed));
  const int64_t blocks = (columns + 15) / 16, groups = depth / group, padded = (group + 31) / 32 * 32;
  fb::Packed h{};
  h.magic = fb::kMagic;
  h.kind = fb::kFewBits;
  h.out_channels = static_cast<int32_t>(columns);
  h.depth = static_cast<int32_t>(depth);
  h.group = static_cast<int32_t>(group);
  h.bits = bits;
  h.blocks = static_cast<int32_t>(blocks);
  h.weight_sums = (sizeof(fb::Packed) + 63) / 64 * 64;
  h.steps = h.weight_sums + blocks * groups * 64;
  h.bytes = needed;
  std::memcpy(h.values, values, static_cast<size_t>(most));
  for (int32_t v = most; v < 256; ++v) h.values[v] = h.values[v % most];
  for (int32_t v = 0; bits == 8 && v < 256; ++v) h.values[v] = static_cast<int8_t>(v);  // 8 bits hold the values themselves
  std::memcpy(out, &h, sizeof h);
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t at = block * groups + g;
      for (int64_t j = 0; j < 16 && block * 16 + j < columns; ++j) {
        const uint8_t* row = codes + (block * 16 + j) * depth + g * group;
        int32_t sum = 0;
        for (int64_t k = 0; k < group; ++k) {
          sum += values[row[k]];
          const int64_t s = k / step, within = k % step, t = within % 4, field = within / 4;
          out[h.steps + at * padded * 2 * bits + s * 64 + j * 4 + t] |=
              static_cast<uint8_t>(bits == 8 ? values[row[k]] : row[k] << (field * bits));
        }
        std::memcpy(out + h.weight_sums + at * 64 + j * 4, &sum, 4);
      }
    }
  }
  return FB_OK;
}

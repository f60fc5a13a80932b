// How packed weights lie in memory: a header, and parts at offsets from its begin.
#pragma once
#include <cstddef>
#include <cstdint>

#include "dispatch.h"
#include "fewbits.h"
#include "portable/level.h"

namespace fb {

enum PackedKind : int32_t { kDense = 1, kDepthwise = 2, kFewBits = 3, kWinograd = 4 };

constexpr uint32_t kMagic = 0x4B504246;  // "FBPK"

struct Packed {
  uint32_t magic;
  int32_t kind, level;                      // few bits: for every level
  int32_t out_channels, depth, kernel_h, kernel_w, groups;  // depth: channels / groups
  int32_t blocks;                           // of 16 columns, of one group (depthwise: of all)
  int32_t runs_y, runs_x, steps_of_run;     // of the dense form
  int32_t wide, bits, group, unused;
  int64_t bytes;
  int64_t weight_sums, steps, extra_first, extra_place, extra;  // offsets; extra_first is 0 where nothing saturates
  int8_t values[256];                       // few bits: what each code stands for
};

static_assert(offsetof(Packed, weight_sums) == FB_PACKED_SUMS && offsetof(Packed, steps) == FB_PACKED_STEPS &&
                  offsetof(Packed, values) == FB_PACKED_VALUES,
              "portable/level.h says where they are");

// Steps filled up, where the level has tiles, to as many of one size as hold them: at most 16 each.
inline int32_t whole_tiles(int32_t steps) {
  if (!kernels().tiles) return steps;
  const int32_t tiles = (steps + 15) / 16;
  return (steps + tiles - 1) / tiles * tiles;
}

// How a convolution's depth is cut into runs of neighbouring codes.
struct Runs {
  int32_t y, x, steps, codes;
};

inline bool is_depthwise(const fb_conv& c) {
  return c.groups == c.channels && c.out_channels == c.channels && c.channels > 1 && c.x_type == FB_U8 &&
         c.weight_type == FB_S8 && static_cast<int64_t>(c.kernel_h) * c.kernel_w <= 128;
}

inline bool is_wide(const fb_conv& c) { return c.x_type == FB_S16 || c.weight_type == FB_S16; }

inline Runs runs_of(const fb_conv& c, bool wide) {
  const int32_t depth = c.channels / c.groups, per_step = wide ? 2 : 4;
  const bool joined = c.groups == 1 && c.dilation_w == 1;
  const int32_t codes = joined ? depth * c.kernel_w : depth;
  const int32_t steps = (codes + per_step - 1) / per_step;
  return {c.kernel_h, joined ? 1 : c.kernel_w, wide ? steps : whole_tiles(steps), codes};
}

// Whether a convolution is one of those that winograd.cpp does.
inline bool is_3x3(const fb_conv& c) {
  return c.kernel_h == 3 && c.kernel_w == 3 && c.stride_h == 1 && c.stride_w == 1 && c.dilation_h == 1 && c.dilation_w == 1 &&
         c.groups == 1 && c.x_type == FB_U8 && c.weight_type == FB_S8;
}

int32_t check_conv(const fb_conv& c);  // calls.cpp

}  // namespace fb

// What a level offers. Those of portable/*.c are compiled for each level; simd/*.cpp replaces some of them.
#pragma once
#include <cstdint>

#include "fewbits.h"
#include "portable/level.h"

namespace fb {

// Which instructions a level uses (kernels/library.py, LEVELS).
enum Level : int32_t { kPortable = 0, kAvx2 = 1, kAvxVnni = 2, kAvx512 = 3, kAmx = 4, kNeon = 5, kLevels = 6 };

// A convolution whose weights are packed, of one image that has its margins, as a product of a matrix of
// pixels [pixels, depth] with one of weights [depth, columns].
struct Product {
  const uint8_t* x;       // of the first group; uint8, or int16 where wide
  const uint8_t* steps;   // [blocks][steps][64]: 16 columns times 4 codes, or 2 where wide; of few bits [8 bits]
  const int32_t* sums;    // [blocks 16]: what a sum starts with
  const int32_t* added;   // [pixels], or null: added to all sums of a pixel
  const uint8_t* extra;   // [...][32]: 8 columns times 4 codes, for pairs that would saturate
  const int32_t* extra_first;  // [blocks 2 + 1]
  const int32_t* extra_place;  // [...]: which step's codes they multiply
  const fb_rescale* rescale;
  void* y;
  int64_t y_step;               // codes from pixel to pixel
  int64_t first_channel;        // of the group
  int32_t columns;              // of the group
  int32_t width;                // pixels of a row of the output
  int64_t pixel, line;          // bytes from pixel to pixel, from row to row
  int32_t runs_y, runs_x;       // runs of neighbouring codes under the kernel
  int64_t run_y, run_x;         // bytes from run to run
  int32_t steps_of_run;
  bool wide;
  int32_t bits;          // of each weight: 1, 2 or 4, for levels with tiles only; 0: bytes
  const int8_t* values;  // [64]: what these stand for, again and again
  const uint8_t* ahead;  // what the same thread reads next, the call behind it, which may be asked for; or null
  int64_t ahead_bytes;
};

struct Depthwise {
  const uint8_t* x;        // with its margins
  const uint8_t* weights;  // pack.cpp
  const int32_t* sums;     // [blocks 16]
  const fb_rescale* rescale;
  void* y;
  const int32_t* taps;  // [number]: bytes from the first
  int32_t number, channels, width;
  int64_t pixel, line;
};

// Tiles of a 3×3 convolution in the form of Winograd: F(4×4, 3×3), thirty-six matrix products for sixteen pixels.
struct Winograd {
  const uint8_t* x;      // images with their margins, filled up to whole tiles
  int64_t line, image;   // bytes from row to row, from image to image
  int32_t channels, depth;  // depth: channels filled up to 16
  int32_t tiles_y, tiles_x;
  int64_t first, count;  // of the tiles in hand, numbered through the images
  int16_t* v;            // [36][count][depth]
  int32_t* m;            // [36][count][columns of a slice]
  int64_t m_step;        // columns of a slice
  const int32_t* sums;   // what the sum of each column starts with
  const fb_rescale* rescale;
  void* y;               // of the first image
  int32_t high, wide, columns;
};

struct Kernels {
  void (*conv)(const fb_conv*, int64_t, int64_t);
  void (*matmul)(const fb_matmul*, int64_t, int64_t);
  void (*pair)(const fb_pair*, int64_t, int64_t);
  void (*table)(const fb_table*, int64_t, int64_t);
  void (*pool)(const fb_pool*, int64_t, int64_t);
  void (*mean)(const fb_mean*, int64_t, int64_t);
  void (*softmax)(const fb_softmax*, int64_t, int64_t);
  void (*norm)(const fb_norm*, int64_t, int64_t);
  void (*quantize)(const fb_quantize*, int64_t, int64_t);
  void (*dequantize)(const fb_dequantize*, int64_t, int64_t);
  void (*move)(const fb_move*, int64_t, int64_t);
  void (*rows)(const fb_rows*, int64_t, int64_t);
  void (*threshold)(const fb_threshold*, int64_t, int64_t);
  void (*lines)(const fb_binary*, uint64_t*, int64_t, int64_t);
  void (*covered)(const fb_binary*, const uint64_t*, const fb_covered*, int64_t, int64_t);
  void (*binary)(const fb_binary*, const fb_covered*, int64_t, int64_t, int64_t, int64_t);
  void (*sparse)(const fb_sparse*, const uint8_t*, int64_t, int64_t, int64_t);
  void (*grouped)(const fb_grouped*, int64_t, int64_t);
  int32_t (*range)(const float*, int64_t, float*, float*);
  // Null where the level has none: pixels [begin, end), blocks of 16 columns [first, last).
  void (*product)(const Product*, int64_t begin, int64_t end, int32_t first, int32_t last);
  void (*depthwise)(const Depthwise*, int64_t begin, int64_t end);  // rows of the output
  void (*winograd_in)(const Winograd*, int64_t begin, int64_t end);  // tiles in hand
  void (*winograd_out)(const Winograd*, int64_t begin, int64_t end, int64_t channel, int32_t channels);  // of the slice's first
  bool pairs;  // whether pairs of products are added in 16 bits, so that weights are split where they would saturate
  int32_t code_offset;  // taken off codes before they are multiplied
  bool tiles;  // whether steps are multiplied by tiles of them, all of one size
};

// Instructions that some processors of the avx512 and amx levels have beside.
enum Feature : int32_t { kVbmi = 1, kVbmi2 = 2, kVpopcntdq = 4 };
int32_t features();

// The level in use; its kernels.
int32_t level();
inline bool has_512_bits() { return level() == kAvx512 || level() == kAmx; }
const Kernels& kernels();

}  // namespace fb

extern "C" {
extern const fb::Kernels fb_portable_kernels, fb_avx2_kernels, fb_avxvnni_kernels, fb_avx512_kernels, fb_amx_kernels,
    fb_neon_kernels;
}

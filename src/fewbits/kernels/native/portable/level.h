/* Names of one level: each source here is compiled once for every level, with that level's instructions, and all give the
   same bits. Where it is compiled alone (a C export), the level is `portable`. */
#ifndef FB_LEVEL_H
#define FB_LEVEL_H
#include <stdint.h>
#include <string.h>

#include "../fewbits.h"

#ifndef FB_LEVEL
#define FB_LEVEL portable
#endif
#define FB_JOIN_(level, name) fb_##level##_##name
#define FB_JOIN(level, name) FB_JOIN_(level, name)
#define FB_FN(name) FB_JOIN(FB_LEVEL, name)

/* Where the header of packed few-bit weights (packed.h, which checks these) has what reading needs. */
enum { FB_PACKED_SUMS = 72, FB_PACKED_STEPS = 80, FB_PACKED_VALUES = 112 };

#ifdef __cplusplus
extern "C" {
#define restrict __restrict
#endif

/* A pixel of the output of a binary layer: the sum of the bits under the kernel, by what they count; where it begins, or
   FB_WITHIN for y where nothing of it lies outside the image. */
typedef struct {
  int32_t total, y, x;
} fb_pixel;
enum { FB_WITHIN = INT32_MIN };

/* Some neighbouring pixels of the output: of the one numbered `first` are planes[0] and pixels[0]. */
typedef struct {
  uint64_t* planes;
  fb_pixel* pixels;
  int64_t first;
} fb_covered;

/* Sizes of a binary layer. words_of_line: one more than its bits take, so that reading may go on. */
static inline int32_t fb_binary_high(const fb_binary* c) {
  return (c->height + c->top + c->bottom - c->dilation_h * (c->kernel_h - 1) - 1) / c->stride_h + 1;
}
static inline int32_t fb_binary_wide(const fb_binary* c) {
  return (c->width + c->left + c->right - c->dilation_w * (c->kernel_w - 1) - 1) / c->stride_w + 1;
}
static inline int64_t fb_words_of_line(const fb_binary* c) {
  return (((int64_t)c->width + c->left + c->right) * c->channels + 63) / 64 + 1;
}
static inline int64_t fb_binary_words(const fb_binary* c) {
  return ((int64_t)c->kernel_h * c->kernel_w * c->channels + 63) / 64;
}

/* The sums of eight columns of a pixel from what its bits and theirs have in common; modulo 2^32 on the way. */
static inline void fb_binary_sums(const fb_binary* c, const fb_pixel* pixel, const uint32_t* counts, int64_t block, int32_t* sums) {
  const uint32_t step = (uint32_t)c->x_step * (uint32_t)c->w_step;
  const uint32_t all = (uint32_t)c->w_low * (uint32_t)c->x_step * (uint32_t)pixel->total;
  const int64_t blocks = (c->columns + 7) / 8;
  uint32_t sum[8];
  for (int32_t j = 0; j < 8; ++j) {
    sum[j] = step * counts[j] + all + (8 * block + j < c->columns ? (uint32_t)c->bias[8 * block + j] : 0);
  }
  if (c->outside && pixel->y != FB_WITHIN) {
    for (int32_t ky = 0; ky < c->kernel_h; ++ky) {
      const int32_t y = pixel->y + ky * c->dilation_h;
      for (int32_t kx = 0; kx < c->kernel_w; ++kx) {
        const int32_t x = pixel->x + kx * c->dilation_w;
        if (y >= 0 && y < c->height && x >= 0 && x < c->width) continue;
        const int32_t* more = c->outside + ((int64_t)(ky * c->kernel_w + kx) * blocks + block) * 8;
        for (int32_t j = 0; j < 8; ++j) sum[j] += (uint32_t)more[j];
      }
    }
  }
  for (int32_t j = 0; j < 8; ++j) sums[j] = (int32_t)sum[j];
}

/* Sums of the channels from `channel` on to what is written at y[at ...]. requantize_row.c */
void FB_FN(rescale_row)(const fb_rescale* r, const int32_t* sums, int64_t channel, int64_t count, void* y, int64_t at);
void FB_FN(rescale_wide_row)(const fb_rescale* r, const int64_t* sums, int64_t channel, int64_t count, void* y,
                             int64_t at);
/* requantize_float.c, requantize_levels.c, requantize_fixed.c */
void FB_FN(rescale_float)(const fb_rescale* r, const int32_t* sums, int64_t channel, int64_t count, void* y, int64_t at);
void FB_FN(rescale_wide_float)(const fb_rescale* r, const int64_t* sums, int64_t channel, int64_t count, void* y,
                               int64_t at);
void FB_FN(rescale_levels)(const fb_rescale* r, const int32_t* sums, int64_t channel, int64_t count, void* y, int64_t at);
void FB_FN(rescale_fixed)(const fb_rescale* r, const int32_t* sums, int64_t channel, int64_t count, void* y, int64_t at);
void FB_FN(rescale_wide_fixed)(const fb_rescale* r, const int64_t* sums, int64_t channel, int64_t count, void* y,
                               int64_t at);

/* Each does the parts [begin, end) of a call; what a part is stands beside it. */
void FB_FN(conv)(const fb_conv* c, int64_t begin, int64_t end);             /* rows of the output image */
void FB_FN(matmul)(const fb_matmul* c, int64_t begin, int64_t end);         /* rows of all matrices */
void FB_FN(pair)(const fb_pair* c, int64_t begin, int64_t end);             /* runs along the last axis */
void FB_FN(table)(const fb_table* c, int64_t begin, int64_t end);           /* codes */
void FB_FN(pool)(const fb_pool* c, int64_t begin, int64_t end);             /* rows of the output image */
void FB_FN(mean)(const fb_mean* c, int64_t begin, int64_t end);             /* outer */
void FB_FN(softmax)(const fb_softmax* c, int64_t begin, int64_t end);       /* rows */
void FB_FN(norm)(const fb_norm* c, int64_t begin, int64_t end);             /* rows */
void FB_FN(quantize)(const fb_quantize* c, int64_t begin, int64_t end);     /* numbers */
void FB_FN(dequantize)(const fb_dequantize* c, int64_t begin, int64_t end); /* rows of channels */
void FB_FN(move)(const fb_move* c, int64_t begin, int64_t end);             /* entries of the first axis */
void FB_FN(rows)(const fb_rows* c, int64_t begin, int64_t end);             /* outer, times count */
void FB_FN(threshold)(const fb_threshold* c, int64_t begin, int64_t end);   /* outer, times rows */
/* Bits of the lines of images with their margins, [line][x_bits][words of a line]; of them, what the kernel covers at the
   pixels of the output, [pixel][x_bits][words]; then, of those pixels, blocks [first, last) of 8 columns. */
void FB_FN(lines)(const fb_binary* c, uint64_t* lines, int64_t begin, int64_t end);
void FB_FN(covered)(const fb_binary* c, const uint64_t* lines, const fb_covered* to, int64_t begin, int64_t end);
void FB_FN(binary)(const fb_binary* c, const fb_covered* of, int64_t begin, int64_t end, int64_t first, int64_t last);
/* Of rows of x, x_step codes from each other: blocks of 16 columns. */
void FB_FN(sparse)(const fb_sparse* c, const uint8_t* x, int64_t x_step, int64_t begin, int64_t end);
void FB_FN(grouped)(const fb_grouped* c, int64_t begin, int64_t end);       /* blocks of 16 columns */
/* The least and the largest of the numbers and 0; 1 where one is no finite number. quantize.c */
int32_t FB_FN(range)(const float* x, int64_t count, float* low, float* high);

#ifdef __cplusplus
}
#endif
#endif

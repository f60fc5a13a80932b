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

/* Sums of the channels from `channel` on to what is written at y[at ...]. requantize_row.c */
void FB_FN(rescale_row)(const fb_rescale* r, const int32_t* sums, int64_t channel, int64_t count, void* y, int64_t at);
void FB_FN(rescale_wide_row)(const fb_rescale* r, const int64_t* sums, int64_t channel, int64_t count, void* y,
                             int64_t at);
/* requantize_float.c, requantize_fixed.c */
void FB_FN(rescale_float)(const fb_rescale* r, const int32_t* sums, int64_t channel, int64_t count, void* y, int64_t at);
void FB_FN(rescale_wide_float)(const fb_rescale* r, const int64_t* sums, int64_t channel, int64_t count, void* y,
                               int64_t at);
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
/* Planes of the codes of rows, [rows][x_bits][words], and the sum of each row's codes; then blocks of 8 columns of all. */
void FB_FN(planes)(const fb_binary* c, uint64_t* planes, int32_t* totals, int64_t begin, int64_t end);
void FB_FN(binary)(const fb_binary* c, const uint64_t* planes, const int32_t* totals, int64_t begin, int64_t end);
void FB_FN(sparse)(const fb_sparse* c, int64_t begin, int64_t end);         /* columns */
void FB_FN(grouped)(const fb_grouped* c, int64_t begin, int64_t end);       /* blocks of 16 columns */
/* The least and the largest of the numbers and 0; 1 where one is no finite number. quantize.c */
int32_t FB_FN(range)(const float* x, int64_t count, float* low, float* high);

#ifdef __cplusplus
}
#endif
#endif

/* The integer kernels: one struct a call, C99. docs/numerics.md has the equations, kernels/ the NumPy references.

   Codes are uint8 (signed 8-bit codes are stored with 128 added, as their zero points, bounds and tables are) or int16.
   Images are stored channels last: [batch, height, width, channels]. Every call names all that it reads and writes;
   nothing is allocated and nothing is kept. What a call writes does not depend on the level or the threads. */
#ifndef FEWBITS_H
#define FEWBITS_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a function answers. */
enum {
  FB_OK = 0,
  FB_NULL = 1,   /* a pointer that must be there is null */
  FB_SIZE = 2,   /* a size is negative, zero where it may not be, or a product of sizes outgrows the address space */
  FB_LAYOUT = 3, /* a type, kind, layout or packing that this call does not take */
  FB_RANGE = 4,  /* a zero point, bound, shift or number of a row out of range */
  FB_SCRATCH = 5 /* too little scratch */
};

enum { FB_U8 = 0, FB_S16 = 1, FB_S32 = 2, FB_F32 = 3, FB_S8 = 4 };

/* How exact integers become what is written. */
enum {
  FB_SUMS = 0,   /* int32, as they are */
  FB_FLOAT = 1,  /* clip(rint(float32(t) factor) + zero, low, high): eq. 6 */
  FB_DOUBLE = 2, /* eq. 18 */
  FB_SINGLE = 3, /* eq. 19 */
  FB_WIDE = 4,   /* eq. 20 */
  FB_REAL = 5,   /* float32(t) factor + offset, float32: eq. 30 */
  FB_LEVELS = 6  /* levels[how many thresholds t has reached]: eq. 16 */
};

typedef struct {
  const float* factor;     /* [channels] or [1]; FB_FLOAT, FB_REAL */
  const float* offset;     /* [channels], or null; FB_REAL */
  const int32_t* mantissa; /* [channels] or [1]; FB_DOUBLE, FB_SINGLE, FB_WIDE: in [2^30, 2^31), or less, not negative */
  const int32_t* shift;    /* as the mantissa: positive to the left, -62 to 30 */
  const int32_t* thresholds; /* [number][channels] or [number][1]; FB_LEVELS: reached from below, t >= threshold, where */
  const int32_t* direction;  /* [channels] or [1]: this is 1, from above, t <= threshold, where it is -1 */
  const uint8_t* levels;     /* [number + 1]; FB_LEVELS */
  int32_t number;            /* of thresholds, 1 to 255 */
  int32_t channels;          /* of the thresholds of all: from one threshold of a channel to its next */
  int32_t kind;
  int32_t per_channel; /* 0: one for all */
  int32_t zero, low, high;
  int32_t type; /* FB_U8 or FB_S16; FB_S32 with FB_SUMS, FB_F32 with FB_REAL, FB_U8 with FB_LEVELS */
} fb_rescale;

/* A call starts with one of these. */
enum {
  FB_CONV = 1,
  FB_MATMUL = 2,
  FB_PAIR = 3,
  FB_TABLE = 4,
  FB_POOL = 5,
  FB_MEAN = 6,
  FB_SOFTMAX = 7,
  FB_NORM = 8,
  FB_QUANTIZE = 9,
  FB_DEQUANTIZE = 10,
  FB_MOVE = 11,
  FB_ROWS = 12,
  FB_THRESHOLD = 13,
  FB_DYNAMIC = 14,
  FB_BINARY = 15,
  FB_SPARSE = 16,
  FB_GROUPED = 17,
  FB_REPEAT = 18,
  FB_OPERATIONS = 19
};

/* Weights as they come: FB_S8 or FB_S16, less their zero points, [out_channels, kernel_h, kernel_w, channels / groups];
   or packed by fb_pack for the level that runs. FB_FEW, for fb_pack alone: as FB_PLAIN, to be packed in 1, 2 or 4 bits where
   so few tell them apart and the level reads them so. */
enum { FB_PLAIN = 0, FB_PACKED = 1, FB_FEW = 2 };

/* Convolution, channels last; a linear layer is one with a kernel, height and batch of 1, its rows the width. Outside
   the image is the number 0. y: [batch, out_h, out_w, out_channels]. */
typedef struct {
  int32_t op; /* FB_CONV */
  int32_t x_type; /* FB_U8, FB_S16 */
  const void* x;
  void* y;
  const void* weights;
  const int32_t* bias; /* [out_channels], or null */
  fb_rescale rescale;
  int32_t weight_type, layout; /* FB_S8 or FB_S16; FB_PLAIN or FB_PACKED */
  int32_t x_zero;
  int32_t batch, height, width, channels, out_channels, groups;
  int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
  int32_t top, bottom, left, right; /* margins */
  int32_t beyond; /* bytes behind x that may be read: 63 save a copy */
} fb_conv;

/* y[b] = a[b] times b[b], both uint8 codes: a [batches, rows, depth], b [batches, depth, columns], or, where
   b_transposed, [batches, columns, depth]; a step of 0 repeats a matrix. One factor for all. */
typedef struct {
  int32_t op; /* FB_MATMUL */
  int32_t b_transposed;
  const void* a;
  const void* b;
  void* y;
  fb_rescale rescale;
  int32_t a_zero, b_zero;
  int32_t batches, rows, depth, columns;
  int64_t a_step, b_step; /* from matrix to matrix, in codes */
} fb_matmul;

/* Two values to one, broadcast by steps of 0. */
enum {
  FB_ADD = 0,      /* eq. 7, float */
  FB_SUBTRACT = 1, /* the same with a minus */
  FB_ADD_FMA = 2,  /* eq. 7, fma: scale_a, scale_b are the ratios, offset is f; zero_a, zero_b, zero_y what storing adds */
  FB_MULTIPLY = 3, /* eq. 10, float: scale_y is m, offset the zero point of y; zero_y what storing adds */
  FB_MAXIMUM = 4,
  FB_MINIMUM = 5,
  FB_LOOKED_UP = 6 /* table[256 a + b]: quotients, sums in integers */
};

enum { FB_AXES = 6 };

typedef struct {
  int32_t op; /* FB_PAIR */
  int32_t kind;
  const void* a;
  const void* b;
  void* y;             /* in order, no gaps */
  const uint8_t* table; /* [65536], FB_LOOKED_UP */
  float scale_a, scale_b, scale_y, offset;
  int32_t zero_a, zero_b, zero_y, low, high;
  int32_t axes; /* 1 to FB_AXES */
  int64_t sizes[FB_AXES], step_a[FB_AXES], step_b[FB_AXES]; /* outermost first; in codes */
  int32_t a_type, b_type, y_type; /* FB_U8, FB_S16: FB_ADD, FB_SUBTRACT, FB_MULTIPLY only */
} fb_pair;

/* y[i] = table[row of i][x[i]]: rows times `inner` codes follow each other. */
typedef struct {
  int32_t op; /* FB_TABLE */
  int32_t rows;
  const uint8_t* x;
  uint8_t* y;
  const uint8_t* table; /* [rows, 256] */
  int64_t count, inner;
  int32_t x_type, y_type; /* FB_U8, FB_S16: what the pointers point to; the table as y */
  int32_t x_low, codes;   /* of FB_S16 x: its table is [rows, codes], for codes from x_low on; others count as the nearest */
} fb_table;

/* Windows over images. Maximum: padding never wins. Sum: of codes less x_zero, times the factor of each window (eq. 8). */
typedef struct {
  int32_t op; /* FB_POOL */
  int32_t sums; /* 0: maximum */
  const uint8_t* x;
  uint8_t* y;
  const float* factors; /* [out_h, out_w], or [1]; sums only */
  int32_t one_factor;
  int32_t x_zero, zero, low, high;
  int32_t batch, height, width, channels;
  int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
  int32_t top, bottom, left, right;
} fb_pool;

/* y[outer, inner] from the sum of x[outer, :, inner] less x_zero. */
typedef struct {
  int32_t op; /* FB_MEAN */
  int32_t x_zero;
  const uint8_t* x;
  uint8_t* y;
  fb_rescale rescale; /* one factor */
  int64_t outer, length, inner;
} fb_mean;

/* Rows of `length`. Eq. 13; where whole and part are there, eq. 26: below, whole, part are its tables. */
typedef struct {
  int32_t op; /* FB_SOFTMAX */
  int32_t length; /* at most 2047 */
  const uint8_t* x;
  uint8_t* y;
  const int32_t* powers; /* [codes + 1], the last one 0 */
  const uint8_t* mask;   /* [mask_rows, length], or null: which row is row modulo mask_rows */
  const int32_t* below;  /* [256], or null */
  const int32_t* whole;  /* [2048] */
  const int32_t* part;   /* [1025] */
  int64_t rows, mask_rows;
  float scale;
  int32_t zero, low, high;
  int32_t x_type;       /* FB_U8; FB_S16: what x points to, eq. 13 only */
  int32_t x_low, codes; /* 0 and 256; or FB_S16 from x_low on, others count as the nearest */
} fb_softmax;

/* Rows of `length`; gain and shift: [rows modulo gain_rows][length]. Eq. 14; about_zero: numbers are measured from x_zero
   and not from their mean. */
typedef struct {
  int32_t op; /* FB_NORM */
  int32_t length;
  const uint8_t* x;
  uint8_t* y;
  const float* gain;
  const float* shift;
  int64_t rows, gain_rows;
  float epsilon, scale;
  int32_t zero, low, high, about_zero, x_zero;
  int32_t x_type; /* FB_U8; FB_S16: what x points to, rows of at most 16384 */
} fb_norm;

/* float32 to codes, eq. 1: ties to even, or away from 0. */
typedef struct {
  int32_t op; /* FB_QUANTIZE */
  int32_t away;
  const float* x;
  void* y;
  int64_t count;
  float scale;
  int32_t zero, low, high, type; /* FB_U8, FB_S16 */
} fb_quantize;

/* Codes to float32, eq. 2; one scale for all, or one for each of the last axis. */
typedef struct {
  int32_t op; /* FB_DEQUANTIZE */
  int32_t type; /* FB_U8, FB_S16, FB_S32 */
  const void* x;
  float* y;
  const float* scale;
  int64_t count, channels; /* channels: 1 for one scale */
  int32_t zero;
} fb_dequantize;

/* y in order from x by steps: transpositions, slices, copies into a part of something larger. Sizes and steps in items;
   where the table is there, uint8 go through it. */
typedef struct {
  int32_t op; /* FB_MOVE */
  int32_t item; /* bytes: 1, 2, 4 or 8 */
  const void* x;
  void* y;
  const uint8_t* table; /* [256], or null */
  int32_t axes;
  int64_t sizes[FB_AXES], step_x[FB_AXES], step_y[FB_AXES];
} fb_move;

/* y[outer, i, :] = x[outer, numbers[i], :]: picks along an axis, and embeddings, whose numbers are given when it runs. */
typedef struct {
  int32_t op; /* FB_ROWS */
  int32_t item;
  const void* x;
  void* y;
  const int64_t* numbers;
  int64_t outer, source, count, inner; /* outer is 1 for embeddings; source: rows of x; count: numbers */
} fb_rows;

/* Eq. 16: int32 or float32 to codes. x: [outer, rows, inner]. */
typedef struct {
  int32_t op; /* FB_THRESHOLD */
  int32_t type; /* FB_S32, FB_F32 */
  const void* x;
  uint8_t* y;
  const void* thresholds;   /* [rows, number], of x's type, ascending */
  const int8_t* direction;  /* [rows] */
  const uint8_t* levels;    /* [number + 1] */
  int64_t outer, rows, inner;
  int32_t number;
} fb_threshold;

/* A convolution of float32 by the range of its input (eq. 28 to 30): conv.x is the codes, made here in `codes`;
   conv.rescale has kind FB_REAL, its factor is written here. */
typedef struct {
  int32_t op; /* FB_DYNAMIC */
  int32_t weight_scales; /* 1 or out_channels */
  const float* x;
  uint8_t* codes; /* as many as x */
  const float* weight_scale;
  float* factor; /* [weight_scales] */
  fb_conv conv;
} fb_dynamic;

/* A layer of codes and weights with few values: bit planes, and popcounts. x: [batch, height, width, channels]; the number
   of a code is x_low + x_step (its bits from x_first on, x_bits of them); outside the image is the number 0. weights:
   planes [columns / 8][w_bits][words][8] of 64 bits, eight columns beside each other, filled up with 0; bit d of plane p is
   bit p of what the weight w_low + w_step (...) has at place d of its [kernel_h, kernel_w, channels]. */
typedef struct {
  int32_t op; /* FB_BINARY */
  int32_t x_bits, w_bits; /* 1 or 2 */
  int32_t x_first, x_low, x_step, w_low, w_step;
  const uint8_t* x;
  void* y;
  const uint64_t* weights;
  const int32_t* bias;    /* [columns]: with x_low times the sum of each column's weights */
  const int32_t* outside; /* [kernel_h kernel_w][columns / 8 8]: what a place outside the image adds; null: nothing */
  fb_rescale rescale;
  int32_t batch, height, width, channels, columns;
  int32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
  int32_t top, bottom, left, right; /* margins */
} fb_binary;

/* A linear layer whose weights are mostly 0. Either: of each output the depths of its nonzero weights and which of the
   shared values each has; or, for levels that pick bytes from registers: of each block of 16 outputs and each 128 depths some
   steps, each of 64 places below 128, four an output, and the 64 weights there. */
typedef struct {
  int32_t op; /* FB_SPARSE */
  int32_t unused;
  const uint8_t* x; /* [rows, depth] */
  void* y;
  const int32_t* starts;   /* [columns + 1] */
  const uint16_t* places;  /* [starts[columns]] */
  const uint8_t* which;    /* the same */
  const int16_t* values;   /* [256] */
  const uint16_t* counts;  /* [columns / 16][depth / 128]: of steps; or null: by places */
  const uint8_t* steps;    /* [...][128]: uint8 [64], int8 [64] */
  const int64_t* begins;   /* [columns / 16 + 1]: where the steps of a block begin */
  const int32_t* bias;     /* [columns]: less the zero point of x times the sum of the column's weights */
  fb_rescale rescale;
  int32_t rows, depth, columns;
} fb_sparse;

/* A linear layer with few-bit weights as packed by fb_pack_grouped, and a factor a group along the depth: float32
   y = offset + sum over groups, in order, of float32(t of the group) factor, each operation rounded; with one group any
   rescaling. */
typedef struct {
  int32_t op; /* FB_GROUPED */
  int32_t bits;  /* 1, 2, 4 (3 is stored as 4), 8 */
  const uint8_t* x; /* [rows, depth] */
  void* y;
  const void* weights;
  const float* factors; /* [columns, groups] packed as [columns / 16][groups][16]; more than one group only */
  const int32_t* bias;  /* one group only, or null */
  fb_rescale rescale;
  int32_t x_zero, rows, depth, columns, group; /* group: depth, or 32, 64, 128, 256 */
} fb_grouped;

/* Some runs of bytes, from_row and to_row bytes from each other, that are copied at every turn, each time as many bytes
   further: from a sequence, to a sequence, or from what a step made to where the next one reads it. */
typedef struct {
  const void* from;
  void* to;
  int64_t rows, bytes, from_row, to_row, from_turn, to_turn;
} fb_slice;

/* A recurrence: at each turn what `before` copies, then calls, none of them one of these, then what `after` copies. */
typedef struct {
  int32_t op; /* FB_REPEAT */
  int32_t unused;
  const void* const* calls;
  const fb_slice* before;
  const fb_slice* after;
  int64_t count, before_count, after_count, turns; /* count: of calls, at most 65536 */
} fb_repeat;

/* Calls one behind the other, each begun when the one before has ended. */
typedef struct {
  const void* const* calls;
  int64_t count;
  void* scratch; /* at least the most that fb_scratch asks for with as many threads */
  int64_t scratch_bytes;
  int64_t failed;   /* written: before calls[failed] all have run */
  int32_t threads;  /* at most so many, below 1 as 1: what is written does not depend on them */
  int32_t checked;  /* 1 where fb_scratch has accepted every call and nothing that they point to, but what they write, has
                       changed since */
} fb_batch;

#ifdef __cplusplus
}
#endif
#endif

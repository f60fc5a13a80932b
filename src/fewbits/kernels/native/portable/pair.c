/* Two values to one: sums, differences, products (in float32), the larger one, and anything by a table of both codes. */
#include "level.h"
#include "rounding.h"

/* One formula along a run whose operands stand still or move on by one. */
#define RUN(FORMULA)                                                  \
  if (step_a && step_b) {                                             \
    for (int64_t i = 0; i < count; ++i) {                             \
      const uint8_t qa = a[i], qb = b[i];                             \
      y[i] = (uint8_t)(FORMULA);                                      \
    }                                                                 \
  } else if (step_a) {                                                \
    const uint8_t qb = b[0];                                          \
    for (int64_t i = 0; i < count; ++i) {                             \
      const uint8_t qa = a[i];                                        \
      y[i] = (uint8_t)(FORMULA);                                      \
    }                                                                 \
  } else {                                                            \
    const uint8_t qa = a[0];                                          \
    for (int64_t i = 0; i < count; ++i) {                             \
      const uint8_t qb = b[step_b ? i : 0];                           \
      y[i] = (uint8_t)(FORMULA);                                      \
    }                                                                 \
  }

static void run(const fb_pair* c, const uint8_t* restrict a, int64_t step_a, const uint8_t* restrict b, int64_t step_b,
                uint8_t* restrict y, int64_t count) {
  const int32_t za = c->zero_a, zb = c->zero_b, zy = c->zero_y;
  const float sa = c->scale_a, sb = c->scale_b, sy = c->scale_y, offset = c->offset;
  const float low = (float)(c->low - zy), high = (float)(c->high - zy); 
  switch (c->kind) {
    case FB_ADD:
      RUN(fb_code(((float)(qa - za) * sa + (float)(qb - zb) * sb) / sy, zy, low, high))
      break;
    case FB_SUBTRACT:
      RUN(fb_code(((float)(qa - za) * sa - (float)(qb - zb) * sb) / sy, zy, low, high))
      break;
    case FB_ADD_FMA:
      RUN(fb_code(fb_fma((float)(qa - za), sa, fb_fma((float)(qb - zb), sb, offset)), zy, low, high))
      break;
    case FB_MULTIPLY:
      RUN(fb_code((float)((qa - za) * (qb - zb)) * sy + offset, zy, low, high))
      break;
    case FB_MAXIMUM:
      RUN(qa > qb ? qa : qb)
      break;
    case FB_MINIMUM:
      RUN(qa < qb ? qa : qb)
      break;
    default:
      RUN(c->table[256 * (int32_t)qa + qb])
  }
}

enum { PIECE = 256 };

/* Codes at `at`, or one of them again and again, less their zero point. */
static void centred(const void* x, int32_t type, int64_t at, int64_t step, int32_t zero, int64_t count, float* restrict to) {
  if (type == FB_S16) {
    const int16_t* q = (const int16_t*)x + at;
    for (int64_t i = 0; i < count; ++i) to[i] = (float)(q[step ? i : 0] - zero);
  } else {
    const uint8_t* q = (const uint8_t*)x + at;
    for (int64_t i = 0; i < count; ++i) to[i] = (float)(q[step ? i : 0] - zero);
  }
}

/* Sums, differences and products where a value has wider codes than bytes. */
static void wide_run(const fb_pair* c, int64_t a, int64_t b, int64_t y, int64_t count) {
  const int64_t step_a = c->step_a[c->axes - 1], step_b = c->step_b[c->axes - 1];
  const float sa = c->scale_a, sb = c->scale_b, sy = c->scale_y, offset = c->offset;
  const int32_t zero = c->zero_y;
  const float low = (float)(c->low - zero), high = (float)(c->high - zero);
  float left[PIECE], right[PIECE];
  for (int64_t first = 0; first < count; first += PIECE) {
    const int64_t n = count - first < PIECE ? count - first : PIECE;
    centred(c->a, c->a_type, a + first * step_a, step_a, c->zero_a, n, left);
    centred(c->b, c->b_type, b + first * step_b, step_b, c->zero_b, n, right);
    if (c->kind == FB_MULTIPLY) {
      for (int64_t i = 0; i < n; ++i) left[i] = left[i] * right[i] * sy + offset;
    } else if (c->kind == FB_ADD) {
      for (int64_t i = 0; i < n; ++i) left[i] = (left[i] * sa + right[i] * sb) / sy;
    } else {
      for (int64_t i = 0; i < n; ++i) left[i] = (left[i] * sa - right[i] * sb) / sy;
    }
    if (c->y_type == FB_S16) {
      int16_t* restrict to = (int16_t*)c->y + y + first;
      for (int64_t i = 0; i < n; ++i) to[i] = (int16_t)fb_code(left[i], zero, low, high);
    } else {
      uint8_t* restrict to = (uint8_t*)c->y + y + first;
      for (int64_t i = 0; i < n; ++i) to[i] = (uint8_t)fb_code(left[i], zero, low, high);
    }
  }
}

void FB_FN(pair)(const fb_pair* c, int64_t begin, int64_t end) {
  const int32_t wide = c->a_type != FB_U8 || c->b_type != FB_U8 || c->y_type != FB_U8;
  const int32_t last = c->axes - 1;
  const int64_t count = c->sizes[last];
  for (int64_t line = begin; line < end; ++line) {
    int64_t rest = line, a = 0, b = 0;
    for (int32_t axis = last - 1; axis >= 0; --axis) {
      const int64_t place = rest % c->sizes[axis];
      rest /= c->sizes[axis];
      a += place * c->step_a[axis];
      b += place * c->step_b[axis];
    }
    if (wide) {
      wide_run(c, a, b, line * count, count);
      continue;
    }
    run(c, (const uint8_t*)c->a + a, c->step_a[last], (const uint8_t*)c->b + b, c->step_b[last],
        (uint8_t*)c->y + line * count, count);
  }
}

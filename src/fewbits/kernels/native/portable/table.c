/* Functions of one code. */
#include "level.h"

/* Wider codes than bytes are read, written, or both. */
#define WIDE(X, Y, ENTRY)                                          \
  {                                                                \
    const X* x = (const X*)c->x;                                   \
    const Y* table = (const Y*)c->table + row * codes;             \
    Y* y = (Y*)c->y;                                               \
    for (int64_t i = begin; i < last; ++i) {                       \
      const int32_t q = x[i];                                      \
      y[i] = table[ENTRY];                                         \
    }                                                              \
  }

static void wide(const fb_table* c, int64_t begin, int64_t end) {
  const int32_t codes = c->x_type == FB_S16 ? c->codes : 256, low = c->x_low, high = c->x_low + codes - 1;
  while (begin < end) {
    const int64_t run = c->rows > 1 ? begin / c->inner : 0, row = c->rows > 1 ? run % c->rows : 0;
    const int64_t last = c->rows > 1 && (run + 1) * c->inner < end ? (run + 1) * c->inner : end;
    if (c->x_type == FB_U8) {
      WIDE(uint8_t, int16_t, q)
    } else if (c->y_type == FB_U8) {
      WIDE(int16_t, uint8_t, (q < low ? low : q > high ? high : q) - low)
    } else {
      WIDE(int16_t, int16_t, (q < low ? low : q > high ? high : q) - low)
    }
    begin = last;
  }
}

void FB_FN(table)(const fb_table* c, int64_t begin, int64_t end) {
  if (c->x_type != FB_U8 || c->y_type != FB_U8) {
    wide(c, begin, end);
    return;
  }
  if (c->rows == 1) {
    const uint8_t* t = c->table;
    int64_t i = begin;
    for (; i + 4 <= end; i += 4) {
      const uint8_t q0 = t[c->x[i]], q1 = t[c->x[i + 1]], q2 = t[c->x[i + 2]], q3 = t[c->x[i + 3]];
      c->y[i] = q0;
      c->y[i + 1] = q1;
      c->y[i + 2] = q2;
      c->y[i + 3] = q3;
    }
    for (; i < end; ++i) c->y[i] = t[c->x[i]];
    return;
  }
  int64_t row = begin / c->inner % c->rows, place = begin % c->inner;
  for (int64_t i = begin; i < end; ++i) {
    c->y[i] = c->table[row * 256 + c->x[i]];
    if (++place == c->inner) {
      place = 0;
      row = row + 1 == c->rows ? 0 : row + 1;
    }
  }
}

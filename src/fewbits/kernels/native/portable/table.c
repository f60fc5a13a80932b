/* Functions of one code. */
#include "level.h"

void FB_FN(table)(const fb_table* c, int64_t begin, int64_t end) {
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

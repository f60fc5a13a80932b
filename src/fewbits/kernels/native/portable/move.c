/* Codes that only move: transpositions, slices, picks, and copies into a part of something larger. */
#include "level.h"

#if defined(FB_SIMD)
#define FB_TABLE_FN FB_FN(simd_table) /* simd/table.cpp */
void FB_TABLE_FN(const fb_table* c, int64_t begin, int64_t end);
void FB_FN(table_rows)(const uint8_t* table, const uint8_t* x, int64_t dx, uint8_t* y, int64_t dy, int64_t rows, int64_t count);
#else
#define FB_TABLE_FN FB_FN(table)
#endif

enum { TILE = 16 };

/* n items by steps. */
static void line(const fb_move* c, int64_t x, int64_t dx, int64_t y, int64_t dy, int64_t n) {
  if (c->table && dx == 1 && dy == 1) {
    const fb_table t = {0, 1, (const uint8_t*)c->x + x, (uint8_t*)c->y + y, c->table, n, 1, FB_U8, FB_U8, 0, 256};
    FB_TABLE_FN(&t, 0, n);
  } else if (c->table) {
    const uint8_t* from = (const uint8_t*)c->x + x;
    uint8_t* to = (uint8_t*)c->y + y;
    for (int64_t i = 0; i < n; ++i) to[i * dy] = c->table[from[i * dx]];
  } else if (dx == 1 && dy == 1) {
    memcpy((uint8_t*)c->y + y * c->item, (const uint8_t*)c->x + x * c->item, (size_t)(n * c->item));
  } else if (c->item == 1) {
    const uint8_t* from = (const uint8_t*)c->x + x;
    uint8_t* to = (uint8_t*)c->y + y;
    if (dx == 0 && dy == 1) {
      memset(to, from[0], (size_t)n);
    } else {
      for (int64_t i = 0; i < n; ++i) to[i * dy] = from[i * dx];
    }
  } else if (c->item == 2) {
    const uint16_t* from = (const uint16_t*)c->x + x;
    uint16_t* to = (uint16_t*)c->y + y;
    for (int64_t i = 0; i < n; ++i) to[i * dy] = from[i * dx];
  } else if (c->item == 4) {
    const uint32_t* from = (const uint32_t*)c->x + x;
    uint32_t* to = (uint32_t*)c->y + y;
    for (int64_t i = 0; i < n; ++i) to[i * dy] = from[i * dx];
  } else {
    const uint64_t* from = (const uint64_t*)c->x + x;
    uint64_t* to = (uint64_t*)c->y + y;
    for (int64_t i = 0; i < n; ++i) to[i * dy] = from[i * dx];
  }
}

/* Bytes whose rows become columns, a square at a time so that both stay in the nearest cache. */
static void turned(const uint8_t* from, int64_t dx, uint8_t* to, int64_t dy, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; r += TILE) {
    const int64_t high = rows - r < TILE ? rows - r : TILE;
    for (int64_t k = 0; k < columns; k += TILE) {
      const int64_t wide = columns - k < TILE ? columns - k : TILE;
      for (int64_t i = 0; i < high; ++i) {
        for (int64_t j = 0; j < wide; ++j) to[(r + i) * dy + k + j] = from[(r + i) + (k + j) * dx];
      }
    }
  }
}

/* Bytes of two, three or four planes next to each other: images whose channels become the last axis. */
static void joined(const uint8_t* restrict from, int64_t dx, uint8_t* restrict to, int64_t rows, int64_t planes) {
  const uint8_t *a = from, *b = from + dx;
  if (planes == 2) {
    for (int64_t i = 0; i < rows; ++i) {
      to[2 * i] = a[i];
      to[2 * i + 1] = b[i];
    }
    return;
  }
  const uint8_t* c = from + 2 * dx;
  if (planes == 3) {
    for (int64_t i = 0; i < rows; ++i) {
      to[3 * i] = a[i];
      to[3 * i + 1] = b[i];
      to[3 * i + 2] = c[i];
    }
    return;
  }
  const uint8_t* d = from + 3 * dx;
  for (int64_t i = 0; i < rows; ++i) {
    to[4 * i] = a[i];
    to[4 * i + 1] = b[i];
    to[4 * i + 2] = c[i];
    to[4 * i + 3] = d[i];
  }
}

/* The last two axes, the longer one innermost. */
static void plane(const fb_move* c, int64_t x, int64_t y) {
  const int32_t last = c->axes - 1, before = last - 1;
  const int64_t rows = c->sizes[before], columns = c->sizes[last];
  if (!c->table && c->item == 1 && c->step_x[before] == 1 && c->step_y[last] == 1 && columns >= TILE && rows >= TILE) {
    turned((const uint8_t*)c->x + x, c->step_x[last], (uint8_t*)c->y + y, c->step_y[before], rows, columns);
  } else if (!c->table && c->item == 1 && columns >= 2 && columns <= 4 && c->step_x[before] == 1 && c->step_y[last] == 1 &&
             c->step_y[before] == columns) {
    joined((const uint8_t*)c->x + x, c->step_x[last], (uint8_t*)c->y + y, rows, columns);
#if defined(FB_SIMD)
  } else if (c->table && c->step_x[last] == 1 && c->step_y[last] == 1 && columns >= 32 && rows * columns >= 512) {
    FB_FN(table_rows)(c->table, (const uint8_t*)c->x + x, c->step_x[before], (uint8_t*)c->y + y, c->step_y[before], rows, columns);
#endif
  } else if (columns < rows && columns < TILE) {
    for (int64_t j = 0; j < columns; ++j) {
      line(c, x + j * c->step_x[last], c->step_x[before], y + j * c->step_y[last], c->step_y[before], rows);
    }
  } else {
    for (int64_t i = 0; i < rows; ++i) {
      line(c, x + i * c->step_x[before], c->step_x[last], y + i * c->step_y[before], c->step_y[last], columns);
    }
  }
}

void FB_FN(move)(const fb_move* c, int64_t begin, int64_t end) {
  const int32_t last = c->axes - 1;
  const int64_t first_x = begin * c->step_x[0], first_y = begin * c->step_y[0];
  if (last == 0) {
    line(c, first_x, c->step_x[0], first_y, c->step_y[0], end - begin);
    return;
  }
  fb_move part = *c;
  int64_t place[FB_AXES] = {0}, x = first_x, y = first_y;
  part.sizes[0] = end - begin;
  for (;;) {
    int32_t axis = last - 2;
    plane(&part, x, y);
    for (; axis >= 0; --axis) {
      x += part.step_x[axis];
      y += part.step_y[axis];
      if (++place[axis] < part.sizes[axis]) break;
      x -= part.sizes[axis] * part.step_x[axis];
      y -= part.sizes[axis] * part.step_y[axis];
      place[axis] = 0;
    }
    if (axis < 0) return;
  }
}

void FB_FN(rows)(const fb_rows* c, int64_t begin, int64_t end) {
  const int64_t bytes = c->inner * c->item;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t from = i / c->count * c->source + c->numbers[i % c->count];
    memcpy((uint8_t*)c->y + i * bytes, (const uint8_t*)c->x + from * bytes, (size_t)bytes);
  }
}

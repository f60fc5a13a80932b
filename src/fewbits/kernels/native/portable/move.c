/* Codes that only move: transpositions, slices, picks, and copies into a part of something larger. */
#include "level.h"

static void line(const fb_move* c, int64_t x, int64_t y) {
  const int32_t last = c->axes - 1;
  const int64_t n = c->sizes[last], dx = c->step_x[last], dy = c->step_y[last];
  if (c->table) {
    const uint8_t* from = (const uint8_t*)c->x + x;
    uint8_t* to = (uint8_t*)c->y + y;
    for (int64_t i = 0; i < n; ++i) to[i * dy] = c->table[from[i * dx]];
  } else if (dx == 1 && dy == 1) {
    memcpy((uint8_t*)c->y + y * c->item, (const uint8_t*)c->x + x * c->item, (size_t)(n * c->item));
  } else if (c->item == 1) {
    const uint8_t* from = (const uint8_t*)c->x + x;
    uint8_t* to = (uint8_t*)c->y + y;
    for (int64_t i = 0; i < n; ++i) to[i * dy] = from[i * dx];
  } else if (c->item == 2) {
    const uint16_t* from = (const uint16_t*)c->x + x;
    uint16_t* to = (uint16_t*)c->y + y;
    for (int64_t i = 0; i < n; ++i) to[i * dy] = from[i * dx];
  } else {
    const uint32_t* from = (const uint32_t*)c->x + x;
    uint32_t* to = (uint32_t*)c->y + y;
    for (int64_t i = 0; i < n; ++i) to[i * dy] = from[i * dx];
  }
}

void FB_FN(move)(const fb_move* c, int64_t begin, int64_t end) {
  const int32_t last = c->axes - 1;
  if (last == 0) { /* one axis: a part of it */
    fb_move part = *c;
    part.sizes[0] = end - begin;
    line(&part, begin * c->step_x[0], begin * c->step_y[0]);
    return;
  }
  int64_t place[FB_AXES] = {0}, x = begin * c->step_x[0], y = begin * c->step_y[0];
  place[0] = begin;
  while (place[0] < end) {
    line(c, x, y);
    int32_t axis = last - 1;
    for (; axis >= 0; --axis) {
      x += c->step_x[axis];
      y += c->step_y[axis];
      if (++place[axis] < c->sizes[axis] || axis == 0) break;
      x -= c->sizes[axis] * c->step_x[axis];
      y -= c->sizes[axis] * c->step_y[axis];
      place[axis] = 0;
    }
  }
}

void FB_FN(rows)(const fb_rows* c, int64_t begin, int64_t end) {
  const int64_t bytes = c->inner * c->item;
  for (int64_t i = begin; i < end; ++i) {
    const int64_t from = i / c->count * c->source + c->numbers[i % c->count];
    memcpy((uint8_t*)c->y + i * bytes, (const uint8_t*)c->x + from * bytes, (size_t)bytes);
  }
}

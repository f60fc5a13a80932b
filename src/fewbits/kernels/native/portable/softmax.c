/* Softmax (eq. 13) and its logarithm (eq. 26), from tables of exponentials in integers. */
#include "level.h"
#include "rounding.h"

enum { LONGEST = 2048 };

/* The powers of a row of codes x, as steps from the lowest. */
#define POWERS                                                                                  \
  if (mask) {                                                                                   \
    for (int32_t i = 0; i < n; ++i) most = mask[i] && x[i] > most ? x[i] : most;                \
    for (int32_t i = 0; i < n; ++i) powers[i] = mask[i] ? c->powers[most - x[i]] : 0;           \
  } else {                                                                                      \
    for (int32_t i = 0; i < n; ++i) most = x[i] > most ? x[i] : most;                           \
    for (int32_t i = 0; i < n; ++i) powers[i] = c->powers[most - x[i]];                         \
  }

static void wide_powers(const fb_softmax* c, const int16_t* codes, const uint8_t* mask, int32_t* powers) {
  int32_t x[LONGEST];
  int32_t most = 0;
  const int32_t n = c->length, low = c->x_low, last = c->codes - 1;
  for (int32_t i = 0; i < n; ++i) {
    const int32_t q = codes[i] - low;
    x[i] = q < 0 ? 0 : q > last ? last : q;
  }
  /* A hidden code may lie above the largest that is seen: its step is not read. */
  POWERS
}

static void byte_powers(const fb_softmax* c, const uint8_t* x, const uint8_t* mask, int32_t* powers) {
  int32_t most = 0;
  const int32_t n = c->length;
  POWERS
}

static void softmax_row(const fb_softmax* c, int64_t at, const uint8_t* mask, uint8_t* y) {
  int32_t powers[LONGEST];
  int32_t total = 0;
  const int32_t n = c->length;
  if (c->x_type == FB_S16) {
    wide_powers(c, (const int16_t*)c->x + at, mask, powers);
  } else {
    byte_powers(c, c->x + at, mask, powers);
  }
  for (int32_t i = 0; i < n; ++i) total += powers[i];
  const float low = (float)(c->low - c->zero), high = (float)(c->high - c->zero), sum = (float)(total > 1 ? total : 1), scale = c->scale;
  const int32_t zero = c->zero;
  if (scale < 0x1p-60f || scale > 0x1p60f) {
    for (int32_t i = 0; i < n; ++i) y[i] = (uint8_t)fb_code((float)powers[i] / sum / scale, zero, low, high);
    return;
  }
  const float of_sum = 1.0f / sum, of_scale = 1.0f / scale;
  for (int32_t i = 0; i < n; ++i) {
    y[i] = (uint8_t)fb_code(fb_quotient(fb_quotient((float)powers[i], sum, of_sum), scale, of_scale), zero, low, high);
  }
}

static void log_row(const fb_softmax* c, const uint8_t* x, uint8_t* y) {
  int32_t most = 0, total = 0;
  const int32_t n = c->length;
  for (int32_t i = 0; i < n; ++i) most = x[i] > most ? x[i] : most;
  for (int32_t i = 0; i < n; ++i) total += c->powers[most - x[i]];
  const int32_t whole = total >> 20;
  const int32_t logarithm = c->whole[whole] + c->part[(total / whole - (1 << 20)) >> 10];
  const float low = (float)(c->low - c->zero), high = (float)(c->high - c->zero), scale = c->scale;
  for (int32_t i = 0; i < n; ++i) {
    const int32_t fine = -(c->below[most - x[i]] + logarithm);
    y[i] = (uint8_t)fb_code((float)fine * 0x1p-14f / scale, c->zero, low, high);
  }
}

void FB_FN(softmax)(const fb_softmax* c, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * c->length;
    uint8_t* y = c->y + at;
    if (c->whole) {
      log_row(c, c->x + at, y);
    } else {
      softmax_row(c, at, c->mask ? c->mask + row % c->mask_rows * c->length : 0, y);
    }
  }
}

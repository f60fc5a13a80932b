// The largest code of each window, 64 or 32 channels at a time. Means stay with the portable source.
#include "vectors.h"

#if defined(__AVX2__)

namespace {

// The rows and columns of a window that lie inside the image.
struct Inside {
  int32_t first, last;
};

FB_INLINE Inside inside(int32_t start, int32_t kernel, int32_t dilation, int32_t size) {
  Inside found{0, kernel};
  while (found.first < kernel && start + found.first * dilation < 0) ++found.first;
  while (found.last > found.first && start + (found.last - 1) * dilation >= size) --found.last;
  return found;
}

#if defined(__AVX512BW__)
constexpr int64_t kLine = 8192;  // bytes of a line of largest codes

// y = the largest of `number` lines, step bytes apart.
FB_INLINE void largest_of(const uint8_t* x, int64_t step, int32_t number, uint8_t* y, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) {
    const __mmask64 there = bytes - i >= 64 ? ~__mmask64{0} : (__mmask64{1} << (bytes - i)) - 1;
    __m512i most = _mm512_maskz_loadu_epi8(there, x + i);
    for (int32_t k = 1; k < number; ++k) most = _mm512_max_epu8(most, _mm512_maskz_loadu_epi8(there, x + i + k * step));
    _mm512_mask_storeu_epi8(y + i, there, most);
  }
}

// Pixels of at most 16 channels from `column` on whose windows are inside the image, up to `last`, sixteen codes at a time from
// a line of largest ones that begins at `first`; where they end.
FB_INLINE int32_t narrow(const fb_pool* c, const uint8_t* line, int32_t first, int32_t column, int32_t last, uint8_t* y) {
  const int64_t pixel = c->channels, tap = c->dilation_w * pixel, step = c->stride_w * pixel;
  const int32_t reach = c->dilation_w * (c->kernel_w - 1) + 1;
  int32_t x0 = column * c->stride_w - c->left;
  const uint8_t* x = line + (x0 - first) * pixel;
  for (; column < last && x0 >= 0 && x0 + reach <= c->width; ++column, x0 += c->stride_w, x += step) {
    __m128i found = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x));
    for (int32_t k = 1; k < c->kernel_w; ++k) found = _mm_max_epu8(found, _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + k * tap)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y + column * pixel), found);
  }
  return column;
}

// Down the rows of a window first, for a line of codes at a time, then along it.
FB_INLINE void rows_first(const fb_pool* c, int64_t begin, int64_t end, int32_t out_h, int32_t out_w) {
  const int64_t line = static_cast<int64_t>(c->width) * c->channels, pixel = c->channels;
  const int32_t reach = c->dilation_w * (c->kernel_w - 1) + 1;
  const int64_t columns = (kLine / pixel - reach) / c->stride_w + 1;  // of a line
  uint8_t most[kLine + 64];
  for (int64_t row = begin; row < end; ++row) {
    const int32_t y0 = static_cast<int32_t>(row % out_h) * c->stride_h - c->top;
    const Inside rows = inside(y0, c->kernel_h, c->dilation_h, c->height);
    const uint8_t* image = c->x + row / out_h * c->height * line;
    for (int32_t from = 0; from < out_w;) {
      const int32_t to = out_w - from < columns ? out_w : from + static_cast<int32_t>(columns);
      const int32_t left = from * c->stride_w - c->left, right = (to - 1) * c->stride_w - c->left + reach;
      const int32_t x_begin = left > 0 ? left : 0, x_end = right < c->width ? right : c->width;
      if (rows.last > rows.first && x_end > x_begin) {
        largest_of(image + (y0 + static_cast<int64_t>(rows.first) * c->dilation_h) * line + x_begin * pixel, c->dilation_h * line,
                   rows.last - rows.first, most, (x_end - x_begin) * pixel);
      }
      for (int32_t column = from; column < to; ++column) {
        if (pixel <= 16 && rows.last > rows.first) {  // what lies behind a pixel's codes is written after it
          column = narrow(c, most, x_begin, column, to - static_cast<int32_t>(15 / pixel), c->y + row * out_w * pixel);
          if (column == to) break;
        }
        const int32_t x0 = column * c->stride_w - c->left;
        Inside taps{0, rows.last > rows.first ? c->kernel_w : 0};
        if (x0 < 0 || x0 + reach > c->width) {
          const Inside some = inside(x0, c->kernel_w, c->dilation_w, c->width);
          taps = {some.first, taps.last < some.last ? taps.last : some.last};
        }
        const uint8_t* x = most + (x0 - x_begin) * pixel;
        uint8_t* y = c->y + (row * out_w + column) * pixel;
        if (pixel <= 16) {
          __m128i found = _mm_setzero_si128();
          for (int32_t k = taps.first; k < taps.last; ++k) {
            found = _mm_max_epu8(found, _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + k * c->dilation_w * pixel)));
          }
          store_bytes(y, found, (out_w - column) * pixel >= 16 ? 16 : static_cast<int32_t>(pixel));
          continue;
        }
        for (int64_t first = 0; first < pixel; first += 64) {
          const __mmask64 there = pixel - first >= 64 ? ~__mmask64{0} : (__mmask64{1} << (pixel - first)) - 1;
          __m512i found = _mm512_setzero_si512();
          for (int32_t k = taps.first; k < taps.last; ++k) {
            found = _mm512_max_epu8(found, _mm512_maskz_loadu_epi8(there, x + k * c->dilation_w * pixel + first));
          }
          _mm512_mask_storeu_epi8(y + first, there, found);
        }
      }
      from = to;
    }
  }
}
#endif

}  // namespace

extern "C" void FB_FN(simd_pool)(const fb_pool* c, int64_t begin, int64_t end) {
#if !defined(__AVX512BW__)
  if (c->sums || (c->channels > 16 && c->channels < 32)) return FB_FN(pool)(c, begin, end);
#else
  if (c->sums) return FB_FN(pool)(c, begin, end);
#endif
  const int32_t out_h = (c->height + c->top + c->bottom - c->dilation_h * (c->kernel_h - 1) - 1) / c->stride_h + 1;
  const int32_t out_w = (c->width + c->left + c->right - c->dilation_w * (c->kernel_w - 1) - 1) / c->stride_w + 1;
  const int64_t line = static_cast<int64_t>(c->width) * c->channels;
#if defined(__AVX512BW__)
  const int64_t reach = static_cast<int64_t>(c->dilation_w) * (c->kernel_w - 1) + 1;
  if (reach <= kLine / c->channels) return rows_first(c, begin, end, out_h, out_w);
#else
  const uint8_t* last = c->x + c->batch * c->height * line;
#endif
  for (int64_t row = begin; row < end; ++row) {
    const int32_t y0 = static_cast<int32_t>(row % out_h) * c->stride_h - c->top;
    const Inside rows = inside(y0, c->kernel_h, c->dilation_h, c->height);
    const uint8_t* image = c->x + row / out_h * c->height * line;
    for (int32_t column = 0; column < out_w; ++column) {
      const int32_t x0 = column * c->stride_w - c->left;
      const Inside columns = inside(x0, c->kernel_w, c->dilation_w, c->width);
      const uint8_t* x = image + static_cast<int64_t>(y0) * line + static_cast<int64_t>(x0) * c->channels;
      uint8_t* y = c->y + (row * out_w + column) * c->channels;
      int32_t first = 0;
#if defined(__AVX512BW__)
      for (; first < c->channels; first += 64) {
        const int32_t left = c->channels - first;
        const __mmask64 there = left >= 64 ? ~__mmask64{0} : (__mmask64{1} << left) - 1;
        __m512i most = _mm512_setzero_si512();
        for (int32_t ky = rows.first; ky < rows.last; ++ky) {
          for (int32_t kx = columns.first; kx < columns.last; ++kx) {
            const uint8_t* tap = x + ky * c->dilation_h * line + static_cast<int64_t>(kx) * c->dilation_w * c->channels + first;
            most = _mm512_max_epu8(most, _mm512_maskz_loadu_epi8(there, tap));
          }
        }
        _mm512_mask_storeu_epi8(y + first, there, most);
      }
#else
      if (c->channels <= 16) {  // what is read behind a pixel's channels is not written
        __m128i most = _mm_setzero_si128();
        for (int32_t ky = rows.first; ky < rows.last; ++ky) {
          for (int32_t kx = columns.first; kx < columns.last; ++kx) {
            const uint8_t* tap = x + ky * c->dilation_h * line + static_cast<int64_t>(kx) * c->dilation_w * c->channels;
            uint8_t near[16];
            if (tap + 16 > last) {
              __builtin_memcpy(near, tap, static_cast<size_t>(c->channels));
              tap = near;
            }
            most = _mm_max_epu8(most, _mm_loadu_si128(reinterpret_cast<const __m128i*>(tap)));
          }
        }
        store_bytes(y, most, c->channels);
        continue;
      }
      for (;;) {
        __m256i most = _mm256_setzero_si256();
        for (int32_t ky = rows.first; ky < rows.last; ++ky) {
          for (int32_t kx = columns.first; kx < columns.last; ++kx) {
            const uint8_t* tap = x + ky * c->dilation_h * line + static_cast<int64_t>(kx) * c->dilation_w * c->channels + first;
            most = _mm256_max_epu8(most, load(tap));
          }
        }
        store(y + first, most);
        if (first + 32 >= c->channels) break;
        first = first + 64 <= c->channels ? first + 32 : c->channels - 32;  // the last ones again
      }
#endif
    }
  }
}

#endif

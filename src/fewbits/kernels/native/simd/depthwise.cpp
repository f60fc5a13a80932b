// A filter for each channel: 64 channels at a time by bytes where products are added in 32 bits, else 16 by words.
#include "vectors.h"

#if defined(__AVX2__)

namespace {

struct Row {
  const uint8_t* x;
  int64_t at;  // codes
};

FB_INLINE Row locate(const fb::Depthwise& d, int64_t row) {
  return {d.x + row * d.line, row * d.width * d.channels};
}

#if defined(__AVX512VNNI__)
// Channel of vector j, lane l, entry i: 16 l + 4 j + i, so that packing brings them back into order.
FB_INLINE int32_t channel64(int32_t j, int32_t e) { return e / 4 * 16 + 4 * j + e % 4; }

FB_INLINE void multiply_add64(__m512i& c, __m512i a, const uint8_t* w) {
  struct Bytes64 {
    uint8_t x[64];
  };
  __asm__("vpdpbusd %1,%2,%0" : "+v"(c) : "m"(*reinterpret_cast<const Bytes64*>(w)), "v"(a));
}

FB_NOINLINE void block64(const fb::Depthwise& d, int32_t first, const uint8_t* weights, int64_t begin, int64_t end) {
  const fb_rescale& r = *d.rescale;
  const bool direct = r.kind == FB_FLOAT && r.type == FB_U8;
  alignas(64) int32_t start[4][16];
  alignas(64) float factor[4][16];
  for (int32_t j = 0; j < 4; ++j) {
    for (int32_t e = 0; e < 16; ++e) {
      const int32_t channel = first + channel64(j, e);
      start[j][e] = d.sums[channel];
      factor[j][e] = direct ? r.factor[r.per_channel ? channel : 0] : 0.0f;
    }
  }
  const __m512 low = _mm512_set1_ps(static_cast<float>(r.low - r.zero));
  const __m512 high = _mm512_set1_ps(static_cast<float>(r.high - r.zero));
  const __m512i zero = _mm512_set1_epi32(r.zero);
  const int32_t quads = (d.number + 3) / 4;
  for (int64_t row = begin; row < end; ++row) {
    const Row place = locate(d, row);
    for (int32_t column = 0; column < d.width; ++column) {
      const uint8_t* x = place.x + column * d.pixel + first;
      __m512i c[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) c[j] = _mm512_load_si512(start[j]);
      const uint8_t* w = weights;
      for (int32_t q = 0; q < quads; ++q, w += 256) {
        const int32_t* tap = d.taps + 4 * q;
        const __m512i t0 = _mm512_loadu_si512(x + tap[0]), t1 = _mm512_loadu_si512(x + tap[1]);
        const __m512i t2 = _mm512_loadu_si512(x + tap[2]), t3 = _mm512_loadu_si512(x + tap[3]);
        const __m512i low01 = _mm512_unpacklo_epi8(t0, t1), high01 = _mm512_unpackhi_epi8(t0, t1);
        const __m512i low23 = _mm512_unpacklo_epi8(t2, t3), high23 = _mm512_unpackhi_epi8(t2, t3);
        multiply_add64(c[0], _mm512_unpacklo_epi16(low01, low23), w);
        multiply_add64(c[1], _mm512_unpackhi_epi16(low01, low23), w + 64);
        multiply_add64(c[2], _mm512_unpacklo_epi16(high01, high23), w + 128);
        multiply_add64(c[3], _mm512_unpackhi_epi16(high01, high23), w + 192);
      }
      const int64_t at = place.at + static_cast<int64_t>(column) * d.channels + first;
      if (direct) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          __m512 t = _mm512_mul_ps(_mm512_cvtepi32_ps(c[j]), _mm512_load_ps(factor[j]));
          t = _mm512_min_ps(_mm512_max_ps(t, low), high);
          c[j] = _mm512_add_epi32(_mm512_cvtps_epi32(t), zero);
        }
        const __m512i codes = _mm512_packus_epi16(_mm512_packs_epi32(c[0], c[1]), _mm512_packs_epi32(c[2], c[3]));
        _mm512_storeu_si512(static_cast<uint8_t*>(d.y) + at, codes);
      } else {
        int32_t mixed[4][16], sums[64];
        for (int j = 0; j < 4; ++j) _mm512_storeu_si512(mixed[j], c[j]);
        for (int32_t j = 0; j < 4; ++j) {
          for (int32_t e = 0; e < 16; ++e) sums[channel64(j, e)] = mixed[j][e];
        }
        FB_FN(rescale_row)(d.rescale, sums, first, 64, d.y, at);
      }
    }
  }
}
#endif

// Channel of vector j, entry e: 8 (e / 4) + 4 j + e % 4.
FB_INLINE int32_t channel16(int32_t j, int32_t e) { return e / 4 * 8 + 4 * j + e % 4; }

FB_NOINLINE void block16(const fb::Depthwise& d, int32_t first, const uint8_t* weights, int64_t begin, int64_t end) {
  const fb_rescale& r = *d.rescale;
  const bool direct = r.kind == FB_FLOAT && r.type == FB_U8;
  const int32_t left = d.channels - first, count = left < 16 ? left : 16;
  int32_t start[2][8];
  float factor[2][8];
  for (int32_t j = 0; j < 2; ++j) {
    for (int32_t e = 0; e < 8; ++e) {
      const int32_t channel = channel16(j, e);
      start[j][e] = channel < count ? d.sums[first + channel] : 0;
      factor[j][e] = direct && channel < count ? r.factor[r.per_channel ? first + channel : 0] : 0.0f;
    }
  }
  const Rescale8 r0 = Rescale8::of(r, factor[0]), r1 = Rescale8::of(r, factor[1]);
  const __m256i start0 = load(start[0]), start1 = load(start[1]), ones = _mm256_setzero_si256();
  const int32_t pairs = (d.number + 1) / 2;
  for (int64_t row = begin; row < end; ++row) {
    const Row place = locate(d, row);
    for (int32_t column = 0; column < d.width; ++column) {
      const uint8_t* x = place.x + column * d.pixel + first;
      __m256i c0 = start0, c1 = start1;
      const uint8_t* w = weights;
      for (int32_t q = 0; q < pairs; ++q, w += 64) {
        const __m256i a = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + d.taps[2 * q])));
        const __m256i b = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + d.taps[2 * q + 1])));
        multiply_add<true>(c0, _mm256_unpacklo_epi16(a, b), w, ones);
        multiply_add<true>(c1, _mm256_unpackhi_epi16(a, b), w + 32, ones);
      }
      const int64_t at = place.at + static_cast<int64_t>(column) * d.channels + first;
      if (direct) {
        const __m256i words = _mm256_packs_epi32(to_codes(r0, c0), to_codes(r1, c1));
        const __m128i codes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        store_bytes(static_cast<uint8_t*>(d.y) + at, codes, count);
      } else {
        int32_t mixed[2][8], sums[16];
        store(mixed[0], c0);
        store(mixed[1], c1);
        for (int32_t j = 0; j < 2; ++j) {
          for (int32_t e = 0; e < 8; ++e) sums[channel16(j, e)] = mixed[j][e];
        }
        FB_FN(rescale_row)(d.rescale, sums, first, count, d.y, at);
      }
    }
  }
}

#if defined(__AVX512VNNI__)
// Two blocks of 16 side by side, all there.
FB_NOINLINE void block32(const fb::Depthwise& d, int32_t first, const uint8_t* weights, int64_t begin, int64_t end) {
  const fb_rescale& r = *d.rescale;
  const int32_t pairs = (d.number + 1) / 2;
  alignas(64) int32_t start[2][16];
  alignas(64) float factor[2][16];
  for (int32_t j = 0; j < 2; ++j) {
    for (int32_t e = 0; e < 16; ++e) {
      const int32_t channel = first + 16 * (e / 8) + channel16(j, e % 8);
      start[j][e] = d.sums[channel];
      factor[j][e] = r.factor[r.per_channel ? channel : 0];
    }
  }
  const __m512 low = _mm512_set1_ps(static_cast<float>(r.low - r.zero));
  const __m512 high = _mm512_set1_ps(static_cast<float>(r.high - r.zero));
  const __m512i zero = _mm512_set1_epi32(r.zero);
  const __m512 factor0 = _mm512_load_ps(factor[0]), factor1 = _mm512_load_ps(factor[1]);
  const uint8_t* second = weights + pairs * 64;
  for (int64_t row = begin; row < end; ++row) {
    const Row place = locate(d, row);
    for (int32_t column = 0; column < d.width; ++column) {
      const uint8_t* x = place.x + column * d.pixel + first;
      __m512i c0 = _mm512_load_si512(start[0]), c1 = _mm512_load_si512(start[1]);
      for (int32_t q = 0; q < pairs; ++q) {
        const __m512i a = _mm512_cvtepu8_epi16(load(x + d.taps[2 * q])), b = _mm512_cvtepu8_epi16(load(x + d.taps[2 * q + 1]));
        const __m512i w0 = _mm512_inserti64x4(_mm512_castsi256_si512(load(weights + 64 * q)), load(second + 64 * q), 1);
        const __m512i w1 = _mm512_inserti64x4(_mm512_castsi256_si512(load(weights + 64 * q + 32)), load(second + 64 * q + 32), 1);
        __asm__("vpdpwssd %1,%2,%0" : "+v"(c0) : "v"(w0), "v"(_mm512_unpacklo_epi16(a, b)));
        __asm__("vpdpwssd %1,%2,%0" : "+v"(c1) : "v"(w1), "v"(_mm512_unpackhi_epi16(a, b)));
      }
      __m512 t0 = _mm512_mul_ps(_mm512_cvtepi32_ps(c0), factor0), t1 = _mm512_mul_ps(_mm512_cvtepi32_ps(c1), factor1);
      t0 = _mm512_min_ps(_mm512_max_ps(t0, low), high);
      t1 = _mm512_min_ps(_mm512_max_ps(t1, low), high);
      const __m512i words = _mm512_packs_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(t0), zero), _mm512_add_epi32(_mm512_cvtps_epi32(t1), zero));
      store(static_cast<uint8_t*>(d.y) + place.at + static_cast<int64_t>(column) * d.channels + first, _mm512_cvtepi16_epi8(words));
    }
  }
}
#endif

}  // namespace

extern "C" void FB_FN(depthwise)(const fb::Depthwise* d, int64_t begin, int64_t end) {
  const uint8_t* weights = d->weights;
  int32_t first = 0;
#if defined(__AVX512VNNI__)
  for (; first + 64 <= d->channels; first += 64, weights += (d->number + 3) / 4 * 256) block64(*d, first, weights, begin, end);
  for (; first + 32 <= d->channels && d->rescale->kind == FB_FLOAT && d->rescale->type == FB_U8;
       first += 32, weights += (d->number + 1) / 2 * 128) {
    block32(*d, first, weights, begin, end);
  }
#endif
  for (; first < d->channels; first += 16, weights += (d->number + 1) / 2 * 64) block16(*d, first, weights, begin, end);
}

#endif

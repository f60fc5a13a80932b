// The multiply-adds of a level and the way from its sums to codes. GCC 12 spills accumulators unless each multiply-add is a
// statement of its own (measured: half the speed), hence the assembly.
#pragma once
#include "simd.h"

#if defined(__AVX2__)
#include <immintrin.h>

struct Bytes32 {
  uint8_t x[32];
};

FB_INLINE __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
FB_INLINE void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
FB_INLINE int32_t word(const uint8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, 4);
  return v;
}

// c += four products of uint8 in a with int8 in memory, or two of int16, in each of 8 columns.
template <bool WIDE>
FB_INLINE void multiply_add(__m256i& c, __m256i a, const uint8_t* w, __m256i ones) {
  const Bytes32& m = *reinterpret_cast<const Bytes32*>(w);
  __m256i t;
  (void)t;
  (void)ones;
#if defined(__AVX512VNNI__)
  if (WIDE) {
    __asm__("vpdpwssd %1,%2,%0" : "+v"(c) : "m"(m), "v"(a));
  } else {
    __asm__("vpdpbusd %1,%2,%0" : "+v"(c) : "m"(m), "v"(a));
  }
#elif defined(__AVXVNNI__)
  if (WIDE) {
    __asm__("%{vex%} vpdpwssd %1,%2,%0" : "+x"(c) : "m"(m), "x"(a));
  } else {
    __asm__("%{vex%} vpdpbusd %1,%2,%0" : "+x"(c) : "m"(m), "x"(a));
  }
#else
  if (WIDE) {
    __asm__("vpmaddwd %2,%3,%1\n\tvpaddd %1,%0,%0" : "+x"(c), "=&x"(t) : "m"(m), "x"(a));
  } else {
    __asm__("vpmaddubsw %2,%3,%1\n\tvpmaddwd %4,%1,%1\n\tvpaddd %1,%0,%0"
            : "+x"(c), "=&x"(t)
            : "m"(m), "x"(a), "x"(ones));
  }
#endif
}

#if !defined(__AVX512VNNI__)
// The same with the weights in a register: of int16 where products of bytes take more than one instruction.
template <bool WIDE>
FB_INLINE void multiply_add_held(__m256i& c, __m256i a, __m256i w) {
#if defined(__AVXVNNI__)
  if (WIDE) {
    __asm__("%{vex%} vpdpwssd %1,%2,%0" : "+x"(c) : "x"(w), "x"(a));
  } else {
    __asm__("%{vex%} vpdpbusd %1,%2,%0" : "+x"(c) : "x"(w), "x"(a));
  }
#else
  static_assert(WIDE, "products of bytes: multiply_add");
  __m256i t;
  __asm__("vpmaddwd %2,%3,%1\n\tvpaddd %1,%0,%0" : "+x"(c), "=&x"(t) : "x"(w), "x"(a));
#endif
}
#endif

// The constants of eq. 6 for eight columns.
struct Rescale8 {
  __m256 factor, low, high;
  __m256i zero;
  FB_INLINE Rescale8 of(const fb_rescale& r, const float* factor8) {
    return {_mm256_loadu_ps(factor8), _mm256_set1_ps(static_cast<float>(r.low - r.zero)),
            _mm256_set1_ps(static_cast<float>(r.high - r.zero)), _mm256_set1_epi32(r.zero)};
  }
};

FB_INLINE __m256i to_codes(const Rescale8& r, __m256i sums) {
  __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), r.factor);
  v = _mm256_min_ps(_mm256_max_ps(v, r.low), r.high);
  return _mm256_add_epi32(_mm256_cvtps_epi32(v), r.zero);
}

// Sixteen codes from columns 0 to 7 and 8 to 15.
FB_INLINE __m128i to_bytes(__m256i q0, __m256i q1) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(q0, q1), 0xD8);
  return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

FB_INLINE void store_bytes(uint8_t* y, __m128i v, int32_t count) {
  if (count >= 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y), v);
    return;
  }
#if defined(__AVX512VL__) && defined(__AVX512BW__)
  _mm_mask_storeu_epi8(y, static_cast<__mmask16>((1u << count) - 1), v);
#else
  uint8_t all[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(all), v);
  if (count & 8) {
    __builtin_memcpy(y, all, 8);
  }
  if (count & 4) __builtin_memcpy(y + (count & 8), all + (count & 8), 4);
  if (count & 2) __builtin_memcpy(y + (count & 12), all + (count & 12), 2);
  if (count & 1) y[count & 14] = all[count & 14];
#endif
}
#endif

// The factors of the sixteen channels from `channel` on, of which `count` are there.
FB_INLINE void factors16(const fb_rescale& r, int64_t channel, int32_t count, float* out) {
  for (int32_t i = 0; i < 16; ++i) out[i] = i < count ? r.factor[r.per_channel ? channel + i : 0] : 0.0f;
}

#if defined(__AVX512VNNI__)
// Whether `rescale16` has this rescaling.
FB_INLINE bool is_direct16(const fb_rescale& r) {
  return (r.kind == FB_FLOAT && r.type == FB_U8) || r.kind == FB_SUMS || r.kind == FB_REAL || (r.kind == FB_LEVELS && r.number <= 15);
}

// What the sums of sixteen channels from `channel` on become, those that are there.
FB_INLINE void rescale16(const fb_rescale& r, int64_t channel, __mmask16 there, __m512i sums, void* y, int64_t at) {
  if (r.kind == FB_SUMS) {
    _mm512_mask_storeu_epi32(static_cast<int32_t*>(y) + at, there, sums);
    return;
  }
  uint8_t* out = static_cast<uint8_t*>(y) + at;
  if (r.kind == FB_LEVELS) {
    const __m512i one = _mm512_set1_epi32(1);
    __m512i reached = _mm512_setzero_si512();
    const __m512i direction = r.per_channel ? _mm512_maskz_loadu_epi32(there, r.direction + channel) : _mm512_set1_epi32(r.direction[0]);
    const __mmask16 up = _mm512_cmpgt_epi32_mask(direction, _mm512_setzero_si512());
    for (int32_t k = 0; k < r.number; ++k) {
      const int32_t* t = r.thresholds + static_cast<int64_t>(k) * r.channels;
      const __m512i v = r.per_channel ? _mm512_maskz_loadu_epi32(there, t + channel) : _mm512_set1_epi32(t[0]);
      const __mmask16 below = _mm512_cmple_epi32_mask(sums, v), above = _mm512_cmpge_epi32_mask(sums, v);
      reached = _mm512_mask_add_epi32(reached, static_cast<__mmask16>((above & up) | (below & ~up)), reached, one);
    }
    const __m128i levels = _mm_maskz_loadu_epi8(static_cast<__mmask16>((2u << r.number) - 1), r.levels);
    _mm_mask_storeu_epi8(out, there, _mm_shuffle_epi8(levels, _mm512_cvtepi32_epi8(reached)));
    return;
  }
  const __m512 factor = r.per_channel ? _mm512_maskz_loadu_ps(there, r.factor + channel) : _mm512_set1_ps(r.factor[0]);
  __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), factor);
  if (r.kind == FB_REAL) {
    if (r.offset) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(there, r.offset + channel));
    _mm512_mask_storeu_ps(static_cast<float*>(y) + at, there, v);
    return;
  }
  v = _mm512_max_ps(v, _mm512_set1_ps(static_cast<float>(r.low - r.zero)));
  v = _mm512_min_ps(v, _mm512_set1_ps(static_cast<float>(r.high - r.zero)));
  const __m512i codes = _mm512_add_epi32(_mm512_cvtps_epi32(v), _mm512_set1_epi32(r.zero));
  _mm_mask_storeu_epi8(out, there, _mm512_cvtepi32_epi8(codes));
}
#endif

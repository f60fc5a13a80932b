// Sums to codes by at most fifteen thresholds (eq. 16), eight at once.
#include "vectors.h"

#if defined(__AVX2__)
extern "C" void FB_FN(simd_levels)(const fb_rescale* r, const int32_t* sums, int64_t channel, int64_t count, void* y, int64_t at) {
  int64_t first = 0;
  if (r->number <= 15) {
    alignas(16) uint8_t held[16] = {0};
    __builtin_memcpy(held, r->levels, static_cast<size_t>(r->number) + 1);
    const __m128i levels = _mm_load_si128(reinterpret_cast<const __m128i*>(held));
    const __m128i bytes = _mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    uint8_t* const out = static_cast<uint8_t*>(y) + at;
    for (; first + 8 <= count; first += 8) {
      // A sum has reached a threshold from above where its complement has reached the threshold's from below.
      const __m256i direction = r->per_channel ? load(r->direction + channel + first) : _mm256_set1_epi32(r->direction[0]);
      const __m256i flip = _mm256_cmpgt_epi32(_mm256_set1_epi32(1), direction);
      const __m256i x = _mm256_xor_si256(load(sums + first), flip);
      __m256i reached = _mm256_set1_epi32(r->number);
      for (int32_t k = 0; k < r->number; ++k) {
        const int32_t* t = r->thresholds + static_cast<int64_t>(k) * r->channels;
        const __m256i v = r->per_channel ? load(t + channel + first) : _mm256_set1_epi32(t[0]);
        reached = _mm256_add_epi32(reached, _mm256_cmpgt_epi32(_mm256_xor_si256(v, flip), x));
      }
      const __m128i low = _mm_shuffle_epi8(_mm256_castsi256_si128(reached), bytes);
      const __m128i high = _mm_shuffle_epi8(_mm256_extracti128_si256(reached, 1), bytes);
      const __m128i codes = _mm_shuffle_epi8(levels, _mm_unpacklo_epi32(low, high));
      _mm_storel_epi64(reinterpret_cast<__m128i*>(out + first), codes);
    }
  }
  if (first < count) FB_FN(rescale_levels)(r, sums + first, channel + first, count - first, y, at + first);
}
#endif

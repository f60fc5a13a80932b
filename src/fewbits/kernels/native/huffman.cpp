// Bit streams of prefix codes, and counts of bytes: kernels/huffman.py and kernels/histogram.py.
#include <cstring>

#include "kernels.h"

namespace {

constexpr int kMaxLength = 12;
constexpr uint64_t kMask = (1u << kMaxLength) - 1;
constexpr int kStreams = 4;

// Eight bytes from data, fewer at the end; least significant first on any machine.
uint64_t load(const uint8_t* data, int64_t left) {
  uint64_t word = 0;
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  if (left >= 8) {
    std::memcpy(&word, data, 8);
    return word;
  }
#endif
  for (int64_t i = 0; i < left && i < 8; ++i) word |= static_cast<uint64_t>(data[i]) << (8 * i);
  return word;
}

struct Reader {
  const uint8_t* data;
  int64_t size;    // bytes
  int64_t at;      // bits
  uint8_t* out;
  int64_t left;    // symbols

  // One symbol. Behind the end zeros are read; `ends_well` finds that out.
  void step(const uint16_t* table) {
    const int64_t byte = at >> 3;
    const uint64_t word = load(data + (byte < size ? byte : size), byte < size ? size - byte : 0);
    const uint16_t entry = table[(word >> (at & 7)) & kMask];
    *out++ = static_cast<uint8_t>(entry);
    at += entry >> 8;
    --left;
  }

  // Four symbols from one load of 57 or more bits.
  void four(const uint16_t* table) {
    uint64_t word;
    std::memcpy(&word, data + (at >> 3), 8);
    word >>= at & 7;
    int64_t used = 0;
    for (int i = 0; i < 4; ++i) {
      const uint16_t entry = table[(word >> used) & kMask];
      *out++ = static_cast<uint8_t>(entry);
      used += entry >> 8;
    }
    at += used;
    left -= 4;
  }

  bool has_four() const { return left >= 4 && (at >> 3) + 8 <= size; }

  bool ends_well() const {
    if ((at + 7) / 8 != size) return false;
    return (at & 7) == 0 || (data[size - 1] >> (at & 7)) == 0;
  }
};

}  // namespace

int64_t fb_encode(const uint8_t* symbols, int64_t n, const uint16_t* codes, const uint8_t* lengths, uint8_t* out) {
  uint64_t bits = 0;
  int held = 0;
  uint8_t* to = out;
  for (int64_t i = 0; i < n; ++i) {
    bits |= static_cast<uint64_t>(codes[symbols[i]]) << held;
    held += lengths[symbols[i]];
    if (held >= 48) {
      for (int byte = 0; byte < 6; ++byte) to[byte] = static_cast<uint8_t>(bits >> (8 * byte));
      to += 6;
      bits >>= 48;
      held -= 48;
    }
  }
  for (; held > 0; held -= 8, bits >>= 8) *to++ = static_cast<uint8_t>(bits);
  return to - out;
}

int32_t fb_decode(const uint8_t* const* streams, const int64_t* sizes, const int64_t* counts, int64_t number,
                  const uint16_t* table, uint8_t* out) {
  Reader readers[kStreams];
  if (number < 0 || number > kStreams) return 1;
  for (int64_t i = 0; i < number; ++i) {
    // Every symbol takes a bit at least: what is claimed beyond that never ends well.
    if (counts[i] < 0 || counts[i] > 8 * sizes[i]) return 1;
    readers[i] = {streams[i], sizes[i], 0, out, counts[i]};
    out += counts[i];
  }
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  // Four at once: while one waits for its table, the others go on.
  if (number == kStreams) {
    while (readers[0].has_four() && readers[1].has_four() && readers[2].has_four() && readers[3].has_four()) {
      for (Reader& reader : readers) reader.four(table);
    }
  }
  for (int64_t i = 0; i < number; ++i) {
    while (readers[i].has_four()) readers[i].four(table);
  }
#endif
  bool well = true;
  for (int64_t i = 0; i < number; ++i) {
    while (readers[i].left > 0 && readers[i].at <= 8 * readers[i].size) readers[i].step(table);
    well = well && readers[i].left == 0 && readers[i].ends_well();
  }
  return well ? 0 : 1;
}

void fb_histogram(const uint8_t* symbols, int64_t n, int64_t* counts) {
  // Several tables: an equal neighbour would otherwise wait for the count before it.
  constexpr int kTables = 4;
  static_assert(kTables == 4, "the loop below takes four symbols at once");
  int64_t tables[kTables][256] = {};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    ++tables[0][symbols[i]];
    ++tables[1][symbols[i + 1]];
    ++tables[2][symbols[i + 2]];
    ++tables[3][symbols[i + 3]];
  }
  for (; i < n; ++i) ++tables[0][symbols[i]];
  for (int symbol = 0; symbol < 256; ++symbol) {
    counts[symbol] = tables[0][symbol] + tables[1][symbol] + tables[2][symbol] + tables[3][symbol];
  }
}

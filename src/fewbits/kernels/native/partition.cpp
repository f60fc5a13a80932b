// Cutting sorted points into k runs: the same sums, differences and comparisons as kernels/partition.py, in the same
// order for each candidate. Compiled without contraction to fused multiply-add, so every level gives equal bits.
#include <cstddef>
#include <limits>
#include <memory>
#include <new>

#include "dispatch.h"
#include "kernels.h"

#if defined(__GNUC__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE inline
#endif

namespace {

constexpr int kLanes = 8;

struct Problem {
  const double* rows[6];  // weight, sum, squares; then their low parts
};

struct Best {
  double cost;
  int64_t begin;
};

ALWAYS_INLINE double run_cost(const Problem& p, int64_t begin, int64_t end) {
  const double weight = (p.rows[0][end] - p.rows[0][begin]) + (p.rows[3][end] - p.rows[3][begin]);
  const double total = (p.rows[1][end] - p.rows[1][begin]) + (p.rows[4][end] - p.rows[4][begin]);
  const double squares = (p.rows[2][end] - p.rows[2][begin]) + (p.rows[5][end] - p.rows[5][begin]);
  const double cost = squares - total * total / weight;
  return cost > 0.0 ? cost : 0.0;
}

// The first least before[i] + cost of [i, end), i from low to high, both included.
ALWAYS_INLINE Best scan(const Problem& p, const double* before, int64_t low, int64_t high, int64_t end) {
  double costs[kLanes];
  int64_t begins[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    costs[lane] = std::numeric_limits<double>::infinity();
    begins[lane] = low + lane;
  }
  int64_t i = low;
  for (; i + kLanes <= high + 1; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double cost = before[i + lane] + run_cost(p, i + lane, end);
      const bool less = cost < costs[lane];
      costs[lane] = less ? cost : costs[lane];
      begins[lane] = less ? i + lane : begins[lane];
    }
  }
  Best best{std::numeric_limits<double>::infinity(), low};
  for (int lane = 0; lane < kLanes; ++lane) {
    if (costs[lane] < best.cost || (costs[lane] == best.cost && begins[lane] < best.begin)) {
      best = {costs[lane], begins[lane]};
    }
  }
  for (; i <= high; ++i) {
    const double cost = before[i] + run_cost(p, i, end);
    if (cost < best.cost) best = {cost, i};
  }
  return best;
}

Best scan_portable(const Problem& p, const double* b, int64_t l, int64_t h, int64_t e) { return scan(p, b, l, h, e); }
#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2"))) Best scan_avx2(const Problem& p, const double* b, int64_t l, int64_t h, int64_t e) {
  return scan(p, b, l, h, e);
}
__attribute__((target("avx512f,avx512dq,prefer-vector-width=512"))) Best scan_avx512(const Problem& p, const double* b,
                                                                                   int64_t l, int64_t h, int64_t e) {
  return scan(p, b, l, h, e);
}
#endif

using Scan = Best (*)(const Problem&, const double*, int64_t, int64_t, int64_t);

Scan scan_of_level() {
#if defined(__x86_64__) && defined(__GNUC__)
  if (fb::has_512_bits()) return scan_avx512;
  if (fb::level() == fb::kAvx2 || fb::level() == fb::kAvxVnni) return scan_avx2;
#endif
  return scan_portable;
}

struct Layer {
  const Problem& problem;
  Scan scan;
  const double* before;
  double* costs;
  int32_t* choices;

  // Ends first to last, whose last run begins between low and high. Depth: log2 of their number.
  void solve(int64_t first, int64_t last, int64_t low, int64_t high) const {
    while (first <= last) {
      const int64_t middle = (first + last) / 2;
      const Best best = scan(problem, before, low, high < middle - 1 ? high : middle - 1, middle);
      costs[middle] = best.cost;
      choices[middle] = static_cast<int32_t>(best.begin);
      solve(first, middle - 1, low, best.begin);
      first = middle + 1;
      low = best.begin;
    }
  }
};

}  // namespace

int32_t fb_best_cuts(const double* sums, int64_t n, int64_t k, int64_t* cuts) {
  Problem problem;
  for (int row = 0; row < 6; ++row) problem.rows[row] = sums + row * (n + 1);
  const size_t width = static_cast<size_t>(n) + 1;
  std::unique_ptr<double[]> costs(new (std::nothrow) double[width]), next(new (std::nothrow) double[width]);
  std::unique_ptr<int32_t[]> choices(new (std::nothrow) int32_t[width * static_cast<size_t>(k)]);
  if (!costs || !next || !choices) return 1;
  const Scan scan_runs = scan_of_level();
  costs[0] = std::numeric_limits<double>::infinity();
  for (int64_t end = 1; end <= n; ++end) costs[end] = run_cost(problem, 0, end);
  for (int64_t runs = 2; runs < k; ++runs) {
    for (int64_t end = 0; end < runs; ++end) next[end] = std::numeric_limits<double>::infinity();
    Layer{problem, scan_runs, costs.get(), next.get(), choices.get() + (runs - 1) * width}.solve(runs, n, runs - 1, n - 1);
    costs.swap(next);
  }
  cuts[0] = 0;
  cuts[k] = n;
  if (k > 1) cuts[k - 1] = scan_runs(problem, costs.get(), k - 1, n - 1, n).begin;
  for (int64_t runs = k - 1; runs > 1; --runs) cuts[runs - 1] = choices[(runs - 1) * width + cuts[runs]];
  return 0;
}

// Work cut into parts that threads take. What a part writes does not depend on who does it.
#pragma once
#include <cstdint>
#include <type_traits>

namespace fb {

constexpr int32_t kMostThreads = 32;  // at work on one call

using Part = void (*)(const void* work, int64_t begin, int64_t end, int32_t number);

// [0, count) in at most `threads` runs of one length, a whole multiple of `whole`, one a thread, the caller's among them; fewer
// where a thread would get less than about `grain`. While another call has the threads, the caller does all. The function may
// take the number of its run, too, below `threads`.
void in_parts(int32_t threads, int64_t count, int64_t grain, int64_t whole, Part part, const void* work);

// As long as it lives the threads stay awake between calls: one is made around the calls of a batch.
class Batch {
 public:
  explicit Batch(int32_t threads);
  ~Batch();
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

 private:
  void* pool_ = nullptr;
};

template <typename Function>
void parallel(int32_t threads, int64_t count, int64_t grain, int64_t whole, const Function& function) {
  const Part part = [](const void* work, int64_t begin, int64_t end, [[maybe_unused]] int32_t number) {
    const auto& does = *static_cast<const Function*>(work);
    if constexpr (std::is_invocable_v<const Function&, int64_t, int64_t, int32_t>) {
      does(begin, end, number);
    } else {
      does(begin, end);
    }
  };
  if (threads > 1 && count > grain) {
    in_parts(threads, count, grain, whole, part, &function);
  } else if (count > 0) {
    part(&function, 0, count, 0);
  }
}

}  // namespace fb

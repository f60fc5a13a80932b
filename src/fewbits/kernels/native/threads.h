// Work cut into parts that threads take. What a part writes does not depend on who does it.
#pragma once
#include <cstdint>

namespace fb {

using Part = void (*)(const void* work, int64_t begin, int64_t end);

// [0, count) in at most `threads` runs of whole multiples of `grain`, one a thread, the caller's among them. While another
// call has the threads, the caller does all.
void in_parts(int32_t threads, int64_t count, int64_t grain, Part part, const void* work);

template <typename Function>
void parallel(int32_t threads, int64_t count, int64_t grain, const Function& function) {
  if (threads <= 1 || count <= grain) {
    if (count > 0) function(int64_t{0}, count);
    return;
  }
  in_parts(threads, count, grain,
           [](const void* work, int64_t begin, int64_t end) { (*static_cast<const Function*>(work))(begin, end); },
           &function);
}

}  // namespace fb

// Threads that are started when first asked for, wait between calls, and end with the process.
#include "threads.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fb {
namespace {

constexpr int32_t kMost = 64;
constexpr int kSpins = 2000;  // a few microseconds: the next layer's work usually comes sooner than a sleeper wakes

struct Job {
  Part part;
  const void* work;
  int64_t count, size;
  int32_t parts;
  uint32_t turn;
};

void relax() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Parts are taken by whoever comes first: the caller does those that no thread has begun, and waits for the others alone. A
// thread that the system lets run late finds the turn over, and takes nothing.
class Pool {
 public:
  void run(Job job) {
    grow(job.parts - 1);
    if (started_ == 0) {
      job.part(job.work, 0, job.count);
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job.turn = static_cast<uint32_t>(next_.load(std::memory_order_relaxed) >> 32) + 1;
      job_ = job;
      left_.store(job.parts, std::memory_order_relaxed);
      next_.store(static_cast<uint64_t>(job.turn) << 32, std::memory_order_release);
    }
    wake_.notify_all();
    take(job);
    for (int i = 0; left_.load(std::memory_order_acquire) != 0; ++i) {
      if (i < kSpins) {
        relax();
      } else {
        std::this_thread::yield();  // the processor is somebody else's: let it come back to the thread that works
      }
    }
  }

 private:
  static void one(const Job& job, int64_t number) {
    const int64_t begin = number * job.size, end = begin + job.size < job.count ? begin + job.size : job.count;
    if (begin < end) job.part(job.work, begin, end);
  }

  // The turn stands in the upper half of the number of the next part, so that none of another turn is taken.
  void take(const Job& job) {
    uint64_t next = next_.load(std::memory_order_acquire);
    while (turn_of(next) == job.turn && static_cast<int32_t>(next & UINT32_MAX) < job.parts) {
      if (!next_.compare_exchange_weak(next, next + 1, std::memory_order_acq_rel)) continue;
      one(job, static_cast<int32_t>(next & UINT32_MAX));
      left_.fetch_sub(1, std::memory_order_release);
      next = next_.load(std::memory_order_acquire);
    }
  }

  static uint32_t turn_of(uint64_t next) { return static_cast<uint32_t>(next >> 32); }

  void grow(int32_t wanted) {
    while (started_ < wanted && started_ < kMost) {
      try {
        std::thread([this, seen = turn_of(next_.load())] { work(seen); }).detach();
      } catch (const std::system_error&) {
        return;  // fewer threads: the parts are the same
      }
      ++started_;
    }
  }

  void work(uint32_t seen) {
    for (;;) {
      for (int i = 0; i < kSpins && turn_of(next_.load(std::memory_order_acquire)) == seen; ++i) relax();
      Job job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return turn_of(next_.load(std::memory_order_acquire)) != seen; });
        job = job_;
      }
      seen = job.turn;
      take(job);
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  Job job_{};
  std::atomic<uint64_t> next_{0};
  std::atomic<int32_t> left_{0};
  int32_t started_ = 0;
};

std::mutex owner;
Pool* pool = nullptr;  // never freed: its threads may outlive static objects
#if defined(__unix__) || defined(__APPLE__)
pid_t of_process = 0;
#endif

}  // namespace

void in_parts(int32_t threads, int64_t count, int64_t grain, Part part, const void* work) {
  const int64_t grains = (count + grain - 1) / grain;
  if (threads > kMost) threads = kMost;
  const int32_t parts = static_cast<int32_t>(grains < threads ? grains : threads);
  std::unique_lock<std::mutex> mine(owner, std::try_to_lock);
  if (parts <= 1 || !mine.owns_lock()) {
    part(work, 0, count);
    return;
  }
#if defined(__unix__) || defined(__APPLE__)
  if (of_process != getpid()) {  // a forked child has no threads
    pool = nullptr;
    of_process = getpid();
  }
#endif
  if (pool == nullptr) pool = new (std::nothrow) Pool;
  if (pool == nullptr) {
    part(work, 0, count);
    return;
  }
  const int64_t size = (grains + parts - 1) / parts * grain;
  pool->run({part, work, count, size, parts, 0});
}

}  // namespace fb

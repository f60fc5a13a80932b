// Threads that are started when first asked for, wait between calls, and end with the process. While a batch runs they stay
// awake, since waking one takes as long as a layer; between batches, and through those on fewer threads, they soon sleep.
#include "threads.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fb {
namespace {

static_assert(kMostThreads <= 32, "a bit each");
using Clock = std::chrono::steady_clock;
constexpr int kSpins = 2000;  // looks, some ten microseconds, before the processor is offered to others at each
constexpr auto kAwake = std::chrono::microseconds(200);  // from then on, until a thread sleeps that no batch wants; not so
                                                         // many looks: on a busy machine each takes milliseconds

struct Job {
  Part part;
  const void* work;
  int64_t count, size;  // size: of a part
};

// Between two looks: the processor may be somebody else's, whom it then goes to, such as the thread that is waited for.
void look_again(int looks) {
  if (looks >= kSpins) {
    std::this_thread::yield();
  } else {
#if defined(__x86_64__)
    _mm_pause();
#endif
  }
}

// Every thread has a part of its own, the caller the first, so that what it wrote before lies in its cache; whoever is done
// takes those that nobody has begun, and the caller waits for the others alone. A thread that the system lets run late finds
// none left. What the job is, is read only by who has taken a part of it: the next one is not written before all parts of
// this are done. No lock is needed between threads that are awake.
class Pool {
 public:
  void run(const Job& job, int32_t parts) {
    grow(parts - 1);
    if (started_ == 0) {
      job.part(job.work, 0, job.count, 0);
      return;
    }
    job_ = job;
    left_.store(parts, std::memory_order_relaxed);
    const uint64_t turn = turn_of(ready_.load(std::memory_order_relaxed)) + UINT64_C(1);
    const uint32_t others = static_cast<uint32_t>((UINT64_C(1) << parts) - 2);
    ready_.store(turn << 32 | others);  // in one order with asleep_: one of the two is seen
    uint32_t called = asleep_.load() & others;
    if (called != 0) {
      { const std::lock_guard<std::mutex> lock(mutex_); }  // who has looked and is about to sleep, sleeps by now
      for (; called != 0; called &= called - 1) wake_[__builtin_ctz(called)].notify_one();
    }
    part_of(0);
    take(0);
    for (int looks = 0; left_.load(std::memory_order_acquire) != 0; looks += looks < kSpins) look_again(looks);
  }

  // A batch begins, on at most so many threads, or ends. One begins at a time.
  void begin(int32_t threads) {
    const bool alone = batches_.fetch_add(1, std::memory_order_relaxed) == 0;
    if (alone || threads > wanted_.load(std::memory_order_relaxed)) wanted_.store(threads, std::memory_order_relaxed);
  }
  void end() { batches_.fetch_sub(1, std::memory_order_relaxed); }

 private:
  static uint32_t turn_of(uint64_t ready) { return static_cast<uint32_t>(ready >> 32); }

  void part_of(int32_t number) {
    const int64_t begin = number * job_.size, end = begin + job_.size < job_.count ? begin + job_.size : job_.count;
    if (begin < end) job_.part(job_.work, begin, end, number);
    left_.fetch_sub(1, std::memory_order_release);
  }

  // The own part, then those that are there to be taken.
  void take(int32_t own) {
    uint64_t ready = ready_.load(std::memory_order_acquire);
    while (static_cast<uint32_t>(ready) != 0) {
      const uint32_t there = static_cast<uint32_t>(ready);
      const int32_t number = there >> own & 1 ? own : __builtin_ctz(there);
      const uint64_t without = ready & ~(UINT64_C(1) << number);
      if (!ready_.compare_exchange_weak(ready, without, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      part_of(number);
      ready = ready_.load(std::memory_order_acquire);
    }
  }

  void grow(int32_t wanted) {
    if (started_ >= wanted || Clock::now() < again_) return;
    while (started_ < wanted) {
      try {
        std::thread([this, own = started_ + 1, seen = turn_of(ready_.load())] { work(own, seen); }).detach();
      } catch (const std::exception&) {  // none to be had, or no memory for it: fewer threads, and the parts are the same
        again_ = Clock::now() + std::chrono::seconds(1);  // asking takes longer than some calls
        return;
      }
      ++started_;
    }
  }

  void work(int32_t own, uint32_t seen) {
    Clock::time_point spun{};
    for (int looks = 0;;) {
      while (turn_of(ready_.load(std::memory_order_acquire)) == seen) {
        if (looks == kSpins && !(is_wanted(own) && batches_.load(std::memory_order_relaxed) != 0) && Clock::now() - spun > kAwake) {
          sleep(own, seen);
        }
        look_again(looks);
        if (looks < kSpins && ++looks == kSpins) spun = Clock::now();
      }
      seen = turn_of(ready_.load(std::memory_order_acquire));
      take(own);
      if (is_wanted(own)) looks = 0;  // else it soon sleeps, through the turns of others, too
    }
  }

  bool is_wanted(int32_t own) const { return own < wanted_.load(std::memory_order_relaxed); }

  void sleep(int32_t own, uint32_t seen) {
    std::unique_lock<std::mutex> lock(mutex_);
    asleep_.fetch_or(UINT32_C(1) << own);
    wake_[own].wait(lock, [&] { return turn_of(ready_.load()) != seen; });
    asleep_.fetch_and(~(UINT32_C(1) << own));
  }

  // Lines of the cache that threads look at while they wait: one comes with the job, one with its end.
  alignas(64) std::atomic<uint64_t> ready_{0};  // the turn, and a bit for each part of it that nobody has taken
  Job job_{};
  alignas(64) std::atomic<int32_t> left_{0};    // parts that are not done
  alignas(64) std::atomic<uint32_t> asleep_{0};  // a bit for each thread
  std::atomic<int32_t> batches_{0}, wanted_{0};  // how many run; on how many threads at most
  int32_t started_ = 0;
  Clock::time_point again_{};  // when more may be asked for
  std::mutex mutex_;
  std::condition_variable wake_[kMostThreads];
};

std::mutex owner;
Pool* pool = nullptr;  // never freed: its threads may outlive static objects
#if defined(__unix__) || defined(__APPLE__)
pid_t of_process = 0;
#endif

// Of this process; null where memory ran out. Its owner's.
Pool* threads_of_process() {
#if defined(__unix__) || defined(__APPLE__)
  if (of_process != getpid()) {  // a forked child has no threads
    pool = nullptr;
    of_process = getpid();
  }
#endif
  if (pool == nullptr) pool = new (std::nothrow) Pool;
  return pool;
}

}  // namespace

Batch::Batch(int32_t threads) {
  if (threads <= 1) return;
  const std::unique_lock<std::mutex> mine(owner, std::try_to_lock);
  if (!mine.owns_lock()) return;
  Pool* const counted = threads_of_process();
  if (counted != nullptr) counted->begin(threads);
  pool_ = counted;
}

Batch::~Batch() {
  if (pool_ != nullptr) static_cast<Pool*>(pool_)->end();
}

void in_parts(int32_t threads, int64_t count, int64_t grain, int64_t whole, Part part, const void* work) {
  const int64_t grains = (count + grain - 1) / grain;
  if (threads > kMostThreads) threads = kMostThreads;
  const int32_t parts = static_cast<int32_t>(grains < threads ? grains : threads);
  const std::unique_lock<std::mutex> mine(owner, std::try_to_lock);
  Pool* const with = parts > 1 && mine.owns_lock() ? threads_of_process() : nullptr;
  if (with == nullptr) {
    part(work, 0, count, 0);
    return;
  }
  const int64_t wholes = (count + whole - 1) / whole, size = (wholes + parts - 1) / parts * whole;
  with->run({part, work, count, size}, parts);
}

}  // namespace fb

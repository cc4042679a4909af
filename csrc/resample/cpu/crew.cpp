// resample_cpu: chooses the vector code and splits the clips over threads.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "resample/cpu/reader.h"

namespace multigrid {
namespace {

std::vector<const RowCode*> runnable() {
  std::vector<const RowCode*> codes = {plain_code()};
#if defined(__x86_64__) && defined(__GNUC__)
  if (avx2_code() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
    codes.push_back(avx2_code());
  if (avx512_code() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    codes.push_back(avx512_code());
#endif
  if (neon_code()) codes.push_back(neon_code());
  return codes;
}

std::atomic<const RowCode*> chosen{nullptr};

const RowCode& row_code() {
  const RowCode* code = chosen.load(std::memory_order_relaxed);
  if (!code) chosen.store(code = runnable().back(), std::memory_order_relaxed);
  return *code;
}

// How many output values are worth starting a thread for.
constexpr std::int64_t thread_values = 1 << 16;

// A range of the output frames of one clip.
struct Task {
  std::int64_t clip, begin, end;
};

std::vector<Task> tasks_for(const BatchView& out, int threads) {
  const std::int64_t wanted = threads == 1 ? 1 : (4 * threads + out.b - 1) / out.b;
  const std::int64_t parts = std::min({out.t, wanted, 1 + out.c * out.t * out.h * out.w / thread_values});
  std::vector<Task> tasks;
  for (std::int64_t clip = 0; clip < out.b; ++clip)
    for (std::int64_t part = 0; part < parts; ++part)
      tasks.push_back({clip, out.t * part / parts, out.t * (part + 1) / parts});
  return tasks;
}

// The threads of one call: the caller's and the helpers that it starts.
class Crew {
 public:
  Crew(const std::vector<ClipView>& videos, const std::vector<Grid>& grids, const Options& options,
       const BatchView& out, const Interrupted& interrupted)
      : videos_(videos),
        grids_(grids),
        options_(options),
        out_(out),
        interrupted_(interrupted),
        code_(row_code()),
        tasks_(tasks_for(out, options.threads)) {}

  bool run() {
    std::vector<std::thread> threads;
    for (std::size_t more = helpers(); more > 0; --more) {
      try {
        threads.emplace_back([this] { help(); });
      } catch (const std::exception&) {
        break;  // the system gives no more threads: the existing ones and this one do the work
      }
      const std::lock_guard<std::mutex> lock(ending_);
      ++helping_;
    }
    work(&interrupted_);
    wait();
    for (std::thread& thread : threads) thread.join();
    if (failure_) std::rethrow_exception(failure_);
    return !stopped_;
  }

 private:
  std::size_t helpers() const {
    const std::int64_t worth = 1 + out_.b * out_.c * out_.t * out_.h * out_.w / thread_values;
    return std::min<std::size_t>(std::min<std::int64_t>(options_.threads, worth), tasks_.size()) - 1;
  }

  void work(const Interrupted* interrupted) noexcept {
    try {
      Pulse pulse(stopped_, interrupted);
      Reader reader(code_, options_, out_, pulse);
      std::int64_t open = -1;
      for (std::size_t i = next_++; i < tasks_.size(); i = next_++) {
        const std::int64_t clip = tasks_[i].clip;
        char* to = static_cast<char*>(out_.data) + clip * out_.clip_bytes();
        if (clip != open) reader.open(videos_[clip], grids_[grids_.size() == 1 ? 0 : clip], to);
        open = clip;
        for (std::int64_t t = tasks_[i].begin; t < tasks_[i].end; ++t) reader.write_frame(t);
      }
    } catch (const Stopped&) {
      // The thread that stopped the work has recorded why.
    } catch (...) {
      const std::lock_guard<std::mutex> lock(ending_);
      failure_ = std::current_exception();
      stopped_ = true;
    }
  }

  void help() noexcept {
    work(nullptr);
    const std::lock_guard<std::mutex> lock(ending_);
    ++helped_;
    ended_.notify_one();
  }

  // For the helpers, whose work an interruption ends, too.
  void wait() {
    std::unique_lock<std::mutex> lock(ending_);
    while (!ended_.wait_for(lock, Pulse::period, [this] { return helped_ == helping_; })) {
      lock.unlock();
      if (!stopped_ && interrupted_()) stopped_ = true;
      lock.lock();
    }
  }

  const std::vector<ClipView>& videos_;
  const std::vector<Grid>& grids_;
  const Options& options_;
  const BatchView& out_;
  const Interrupted& interrupted_;
  const RowCode& code_;
  const std::vector<Task> tasks_;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> stopped_{false};
  std::mutex ending_;
  std::condition_variable ended_;
  std::size_t helping_ = 0, helped_ = 0;
  std::exception_ptr failure_;
};

}  // namespace

bool resample_cpu(const std::vector<ClipView>& videos, const std::vector<Grid>& grids, const Options& options,
                  const BatchView& out, const Interrupted& interrupted) {
  Crew crew(videos, grids, options, out, interrupted);
  return crew.run();
}

const char* vector_path() { return row_code().name; }

std::vector<const char*> vector_paths() {
  std::vector<const char*> names;
  for (const RowCode* code : runnable()) names.push_back(code->name);
  return names;
}

bool choose_vector_path(const char* name) {
  for (const RowCode* code : runnable())
    if (std::strcmp(code->name, name) == 0) {
      chosen.store(code);
      return true;
    }
  return false;
}

}  // namespace multigrid

#include "resample/buffers.h"

#include <algorithm>
#include <atomic>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace multigrid {
namespace {

constexpr std::size_t huge_page = std::size_t{1} << 21;
constexpr int slots = 8;

// The unused buffers, oldest first. A try-lock: callers that fail to take it bypass the ring, because the thread that
// holds it may not have survived a fork.
std::atomic_flag taken = ATOMIC_FLAG_INIT;
Buffer ring[slots];
int used = 0;
std::atomic<std::size_t> held{0};  // also read without the lock
std::size_t limit = std::size_t{256} << 20;

class Entry {
 public:
  Entry() : inside_(!taken.test_and_set(std::memory_order_acquire)) {}
  ~Entry() {
    if (inside_) taken.clear(std::memory_order_release);
  }
  Entry(const Entry&) = delete;
  Entry& operator=(const Entry&) = delete;
  explicit operator bool() const { return inside_; }

 private:
  const bool inside_;
};

Buffer removed(int i) {
  const Buffer buffer = ring[i];
  std::copy(ring + i + 1, ring + used, ring + i);
  held -= buffer.bytes;
  --used;
  return buffer;
}

void release(const Buffer& buffer) { ::operator delete(buffer.data, std::align_val_t(huge_page)); }

void make_room(int free_slots, std::size_t bytes) {
  while (used > 0 && (used + free_slots > slots || held + bytes > limit)) release(removed(0));
}

}  // namespace

Buffer take_buffer(std::size_t bytes) {
  const std::size_t rounded = (bytes + huge_page - 1) / huge_page * huge_page;
  if (const Entry entry; entry) {
    int best = -1;  // at most 1.5 times as large
    for (int i = 0; i < used; ++i)
      if (ring[i].bytes >= rounded && ring[i].bytes <= rounded + rounded / 2 &&
          (best < 0 || ring[i].bytes < ring[best].bytes))
        best = i;
    if (best >= 0) return removed(best);
  }
  const Buffer buffer{::operator new(rounded, std::align_val_t(huge_page)), rounded};
#ifdef __linux__
  madvise(buffer.data, buffer.bytes, MADV_HUGEPAGE);  // only a hint: without it the pages are small
#endif
  return buffer;
}

void give_buffer(const Buffer& buffer) noexcept {
  const Entry entry;
  if (!entry || buffer.bytes > limit) return release(buffer);
  make_room(1, buffer.bytes);
  ring[used++] = buffer;
  held += buffer.bytes;
}

void set_buffer_limit(std::size_t bytes) noexcept {
  const Entry entry;
  if (!entry) return;
  limit = bytes;
  make_room(0, 0);
}

std::size_t unused_buffer_bytes() noexcept { return held; }

}  // namespace multigrid

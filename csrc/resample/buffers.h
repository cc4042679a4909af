// Buffers: reused output memory, because touching a fresh page costs more than the arithmetic that fills it.
#pragma once

#include <cstddef>

namespace multigrid {

struct Buffer {
  void* data;
  std::size_t bytes;
};

// At least `bytes` of memory, on huge pages where the system has them; from the ring if a buffer there fits. Throws
// std::bad_alloc.
Buffer take_buffer(std::size_t bytes);

// Returns a buffer to the ring, or to the system if it does not fit there.
void give_buffer(const Buffer& buffer) noexcept;

// How many bytes of unused buffers the ring may hold in this process, and how many it holds.
void set_buffer_limit(std::size_t bytes) noexcept;
std::size_t unused_buffer_bytes() noexcept;

}  // namespace multigrid

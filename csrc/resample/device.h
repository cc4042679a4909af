// MULTIGRID_HD: a function for the host and, with a CUDA compiler, the device. MULTIGRID_UNROLL: unroll a loop so that
// its arrays stay in registers on the device; MULTIGRID_ROLLED: do not unroll a loop, to save registers.
#pragma once

#ifdef __CUDACC__
#define MULTIGRID_HD __host__ __device__
#define MULTIGRID_UNROLL _Pragma("unroll")
#define MULTIGRID_ROLLED _Pragma("unroll 1")
#else
#define MULTIGRID_HD
#define MULTIGRID_UNROLL
#define MULTIGRID_ROLLED
#endif

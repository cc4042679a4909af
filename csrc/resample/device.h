// MULTIGRID_HD: a function for the host and, where a CUDA compiler reads it, the device. MULTIGRID_UNROLL: a loop whose
// arrays are registers there; MULTIGRID_ROLLED: a loop that is not to be unrolled, for the sake of registers.
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

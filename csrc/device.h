// MULTIGRID_HD: a function for the host and, where a CUDA compiler reads it, the device.
#pragma once

#ifdef __CUDACC__
#define MULTIGRID_HD __host__ __device__
#else
#define MULTIGRID_HD
#endif

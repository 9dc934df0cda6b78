/* A libcuda.so.1 to link against: the names of the driver's entry points, and nothing behind them. Never goes to a board. */
#include "cuda_driver.h"

#pragma GCC diagnostic ignored "-Wunused-parameter"

#define DEFINE(version, name, parameters) \
  CUresult name parameters { return CUDA_ERROR_NOT_SUPPORTED; }
DRIVER_ENTRY_POINTS(DEFINE)

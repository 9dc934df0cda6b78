/* What the stand-in for NVIDIA's runtime calls of the driver (libcuda.so.1), declared as CUDA 10.2's driver has it: every name
   here is an entry point of that driver, by the version that it was made for (in NVIDIA's cudaTypedefs.h, PFN_name_vVERSION).
   Written after NVIDIA's documentation of the driver API; no header of theirs is needed to build this. */
#ifndef ENET_TVM_CUDA_DRIVER_H
#define ENET_TVM_CUDA_DRIVER_H

#include <stddef.h>
#include <stdint.h>

typedef int CUresult, CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct CUctx_st* CUcontext;
typedef struct CUstream_st* CUstream;
typedef struct CUevent_st* CUevent;
typedef struct CUgraph_st* CUgraph;
typedef struct CUgraphExec_st* CUgraphExec;
typedef struct CUgraphNode_st* CUgraphNode;
typedef struct CUfunc_st* CUfunction;

enum { CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_VALUE = 1, CUDA_ERROR_INVALID_DEVICE = 101, CUDA_ERROR_NOT_SUPPORTED = 801 };

/* DRIVER(version, name, parameters): the version of CUDA that the entry point of this name came with. */
#define DRIVER_ENTRY_POINTS(DRIVER)                                                                                        \
  DRIVER(2000, cuInit, (unsigned flags))                                                                                   \
  DRIVER(2000, cuDeviceGet, (CUdevice * device, int ordinal))                                                              \
  DRIVER(2000, cuDeviceGetCount, (int* count))                                                                             \
  DRIVER(2000, cuDeviceGetName, (char* name, int room, CUdevice device))                                                   \
  DRIVER(2000, cuDeviceGetAttribute, (int* value, int attribute, CUdevice device))                                         \
  DRIVER(3020, cuDeviceTotalMem_v2, (size_t* bytes, CUdevice device))                                                      \
  DRIVER(7000, cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device))                                           \
  DRIVER(4000, cuCtxGetCurrent, (CUcontext * context))                                                                     \
  DRIVER(4000, cuCtxSetCurrent, (CUcontext context))                                                                       \
  DRIVER(2000, cuCtxGetDevice, (CUdevice * device))                                                                        \
  DRIVER(3020, cuMemGetInfo_v2, (size_t* available, size_t* total))                                                        \
  DRIVER(3020, cuMemAlloc_v2, (CUdeviceptr * memory, size_t bytes))                                                        \
  DRIVER(3020, cuMemFree_v2, (CUdeviceptr memory))                                                                         \
  DRIVER(3020, cuMemAllocHost_v2, (void** memory, size_t bytes))                                                           \
  DRIVER(2000, cuMemFreeHost, (void* memory))                                                                              \
  DRIVER(3020, cuMemcpyHtoDAsync_v2, (CUdeviceptr to, const void* from, size_t bytes, CUstream stream))                    \
  DRIVER(3020, cuMemcpyDtoHAsync_v2, (void* to, CUdeviceptr from, size_t bytes, CUstream stream))                          \
  DRIVER(3020, cuMemcpyDtoDAsync_v2, (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream))                    \
  DRIVER(4000, cuMemcpyAsync, (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream))                           \
  DRIVER(4000, cuMemcpyPeerAsync,                                                                                          \
         (CUdeviceptr to, CUcontext to_context, CUdeviceptr from, CUcontext from_context, size_t bytes, CUstream stream))  \
  DRIVER(2000, cuStreamCreate, (CUstream * stream, unsigned flags))                                                        \
  DRIVER(4000, cuStreamDestroy_v2, (CUstream stream))                                                                      \
  DRIVER(2000, cuStreamSynchronize, (CUstream stream))                                                                     \
  DRIVER(3020, cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags))                                        \
  DRIVER(10010, cuStreamBeginCapture_v2, (CUstream stream, int mode))                                                      \
  DRIVER(10000, cuStreamEndCapture, (CUstream stream, CUgraph * graph))                                                    \
  DRIVER(2000, cuEventCreate, (CUevent * event, unsigned flags))                                                           \
  DRIVER(4000, cuEventDestroy_v2, (CUevent event))                                                                         \
  DRIVER(2000, cuEventRecord, (CUevent event, CUstream stream))                                                            \
  DRIVER(2000, cuEventSynchronize, (CUevent event))                                                                        \
  DRIVER(2000, cuEventElapsedTime, (float* milliseconds, CUevent start, CUevent end))                                      \
  DRIVER(10000, cuGraphInstantiate, (CUgraphExec * executable, CUgraph graph, CUgraphNode * node, char* log, size_t room)) \
  DRIVER(10000, cuGraphLaunch, (CUgraphExec executable, CUstream stream))                                                  \
  DRIVER(10000, cuGraphExecDestroy, (CUgraphExec executable))                                                              \
  DRIVER(10000, cuGraphDestroy, (CUgraph graph))                                                                           \
  DRIVER(4000, cuLaunchKernel,                                                                                             \
         (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,      \
          unsigned block_z, unsigned shared_bytes, CUstream stream, void** parameters, void** extra))                      \
  DRIVER(9000, cuLaunchCooperativeKernel,                                                                                  \
         (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,      \
          unsigned block_z, unsigned shared_bytes, CUstream stream, void** parameters))                                    \
  DRIVER(6000, cuGetErrorName, (CUresult error, const char** name))                                                        \
  DRIVER(6000, cuGetErrorString, (CUresult error, const char** text))

#define DECLARE(version, name, parameters) extern CUresult name parameters;
DRIVER_ENTRY_POINTS(DECLARE)
#undef DECLARE

#endif

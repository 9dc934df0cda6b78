/* A libcudart.so.13 for drivers that NVIDIA's own does not work with: what TVM's CUDA runtime calls of it, over the driver API
   as of CUDA 10.2 (JetPack 4.6, the last for Jetson TX1 and Nano), and the two newer driver entry points that TVM names.

   Codes of errors, flags of streams, attributes of devices and kinds of capture have the same numbers in both interfaces since
   CUDA 10.1, and streams, events and graphs are the same objects; what the runtime adds is a device per thread, its primary
   context, and a last error per thread. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cuda_driver.h"

typedef int cudaError_t;

enum { MOST_DEVICES = 32 };
enum { HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE, BY_ADDRESS };
enum { cudaSuccess = 0, cudaErrorInvalidMemcpyDirection = 21 };

static __thread int thread_device;
static __thread cudaError_t last_error;

/* The driver gives every caller the same context and counts them; of two threads that come first at once, both are counted. */
static CUcontext contexts[MOST_DEVICES];

static cudaError_t remember(CUresult result) {
  if (result != CUDA_SUCCESS) last_error = result;
  return result;
}

static CUresult primary(int device, CUcontext* context) {
  CUdevice handle;
  CUresult result;
  if (device < 0 || device >= MOST_DEVICES) return CUDA_ERROR_INVALID_DEVICE;
  *context = __atomic_load_n(&contexts[device], __ATOMIC_ACQUIRE);
  if (*context != NULL) return CUDA_SUCCESS;
  if ((result = cuInit(0)) != CUDA_SUCCESS || (result = cuDeviceGet(&handle, device)) != CUDA_SUCCESS ||
      (result = cuDevicePrimaryCtxRetain(context, handle)) != CUDA_SUCCESS)
    return result;
  __atomic_store_n(&contexts[device], *context, __ATOMIC_RELEASE);
  return CUDA_SUCCESS;
}

/* Make sure that this thread has a context: the one it was given by other means, or that of its device. */
static CUresult enter(void) {
  CUcontext context = NULL;
  CUresult result = cuInit(0);
  if (result != CUDA_SUCCESS || (result = cuCtxGetCurrent(&context)) != CUDA_SUCCESS || context != NULL) return result;
  return (result = primary(thread_device, &context)) != CUDA_SUCCESS ? result : cuCtxSetCurrent(context);
}

/* Evaluate a call of the driver in the thread's context. */
#define IN_CONTEXT(call)                         \
  do {                                           \
    CUresult entered = enter();                  \
    return remember(entered ? entered : (call)); \
  } while (0)

/* ---- errors ---- */

cudaError_t cudaGetLastError(void) {
  cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError(void) { return last_error; }

const char* cudaGetErrorName(cudaError_t error) {
  static const struct {
    cudaError_t error;
    const char* name;
  } names[] = {{0, "cudaSuccess"},
               {1, "cudaErrorInvalidValue"},
               {2, "cudaErrorMemoryAllocation"},
               {3, "cudaErrorInitializationError"},
               {4, "cudaErrorCudartUnloading"},
               {21, "cudaErrorInvalidMemcpyDirection"},
               {35, "cudaErrorInsufficientDriver"},
               {100, "cudaErrorNoDevice"},
               {101, "cudaErrorInvalidDevice"},
               {200, "cudaErrorInvalidKernelImage"},
               {201, "cudaErrorDeviceUninitialized"},
               {209, "cudaErrorNoKernelImageForDevice"},
               {218, "cudaErrorInvalidPtx"},
               {222, "cudaErrorUnsupportedPtxVersion"},
               {400, "cudaErrorInvalidResourceHandle"},
               {500, "cudaErrorSymbolNotFound"},
               {600, "cudaErrorNotReady"},
               {700, "cudaErrorIllegalAddress"},
               {701, "cudaErrorLaunchOutOfResources"},
               {702, "cudaErrorLaunchTimeout"},
               {719, "cudaErrorLaunchFailure"},
               {801, "cudaErrorNotSupported"},
               {900, "cudaErrorStreamCaptureUnsupported"},
               {901, "cudaErrorStreamCaptureInvalidated"},
               {999, "cudaErrorUnknown"}};
  const char* name = NULL;
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
    if (names[i].error == error) return names[i].name;
  return cuGetErrorName(error, &name) == CUDA_SUCCESS && name != NULL ? name : "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  const char* text = NULL;
  if (error == cudaErrorInvalidMemcpyDirection) return "invalid copy direction for memcpy"; /* the driver has no such code */
  return cuGetErrorString(error, &text) == CUDA_SUCCESS && text != NULL ? text : "unrecognized error code";
}

/* ---- devices ---- */

cudaError_t cudaGetDeviceCount(int* count) {
  CUresult result = cuInit(0);
  *count = 0;
  return remember(result != CUDA_SUCCESS ? result : cuDeviceGetCount(count));
}

cudaError_t cudaGetDevice(int* device) {
  CUcontext context = NULL;
  CUdevice handle;
  /* A context that was made current by other means says which device it is of; the handles count the devices. */
  if (cuInit(0) == CUDA_SUCCESS && cuCtxGetCurrent(&context) == CUDA_SUCCESS && context != NULL &&
      cuCtxGetDevice(&handle) == CUDA_SUCCESS)
    *device = handle;
  else
    *device = thread_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  CUcontext context = NULL;
  CUresult result = primary(device, &context);
  if (result == CUDA_SUCCESS) result = cuCtxSetCurrent(context);
  if (result == CUDA_SUCCESS) thread_device = device;
  return remember(result);
}

static CUresult attribute(int* value, int which, int device) {
  CUdevice handle;
  CUresult result = cuInit(0);
  if (result == CUDA_SUCCESS) result = cuDeviceGet(&handle, device);
  return result != CUDA_SUCCESS ? result : cuDeviceGetAttribute(value, which, handle);
}

cudaError_t cudaDeviceGetAttribute(int* value, int which, int device) { return remember(attribute(value, which, device)); }

/* CUDA 13's struct cudaDeviceProp is 1008 bytes; these are the fields up to the processors, and the rest is left zero. */
typedef struct {
  char name[256];
  char identity[28]; /* UUID, LUID, device node mask */
  size_t totalGlobalMem, sharedMemPerBlock;
  int regsPerBlock, warpSize;
  size_t memPitch;
  int maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3];
  size_t totalConstMem;
  int major, minor;
  size_t textureAlignment, texturePitchAlignment;
  int multiProcessorCount, integrated, canMapHostMemory;
} Properties;

enum { PROPERTIES_BYTES = 1008 };
_Static_assert(sizeof(void*) == 8 && offsetof(Properties, totalGlobalMem) == 288 &&
                   offsetof(Properties, totalConstMem) == 352 && offsetof(Properties, multiProcessorCount) == 384,
               "the fields lie where CUDA 13 has them");

/* The attributes' numbers in the driver API (CU_DEVICE_ATTRIBUTE_...). */
enum {
  MAX_THREADS_PER_BLOCK = 1,
  MAX_BLOCK_DIM_X,
  MAX_GRID_DIM_X = 5,
  MAX_SHARED_MEMORY_PER_BLOCK = 8,
  TOTAL_CONSTANT_MEMORY,
  WARP_SIZE,
  MAX_PITCH,
  MAX_REGISTERS_PER_BLOCK,
  TEXTURE_ALIGNMENT = 14,
  MULTIPROCESSOR_COUNT = 16,
  INTEGRATED = 18,
  CAN_MAP_HOST_MEMORY,
  TEXTURE_PITCH_ALIGNMENT = 51,
  COMPUTE_CAPABILITY_MAJOR = 75,
  COMPUTE_CAPABILITY_MINOR,
};

cudaError_t cudaGetDeviceProperties(void* out, int device) {
  Properties found;
  CUdevice handle;
  int shared = 0, constant = 0, pitch = 0, alignment = 0, pitch_alignment = 0;
  memset(&found, 0, sizeof found);
  const struct {
    int which;
    int* value;
  } wanted[] = {{MAX_THREADS_PER_BLOCK, &found.maxThreadsPerBlock},
                {MAX_BLOCK_DIM_X, &found.maxThreadsDim[0]},
                {MAX_BLOCK_DIM_X + 1, &found.maxThreadsDim[1]},
                {MAX_BLOCK_DIM_X + 2, &found.maxThreadsDim[2]},
                {MAX_GRID_DIM_X, &found.maxGridSize[0]},
                {MAX_GRID_DIM_X + 1, &found.maxGridSize[1]},
                {MAX_GRID_DIM_X + 2, &found.maxGridSize[2]},
                {MAX_SHARED_MEMORY_PER_BLOCK, &shared},
                {TOTAL_CONSTANT_MEMORY, &constant},
                {WARP_SIZE, &found.warpSize},
                {MAX_PITCH, &pitch},
                {MAX_REGISTERS_PER_BLOCK, &found.regsPerBlock},
                {TEXTURE_ALIGNMENT, &alignment},
                {MULTIPROCESSOR_COUNT, &found.multiProcessorCount},
                {INTEGRATED, &found.integrated},
                {CAN_MAP_HOST_MEMORY, &found.canMapHostMemory},
                {TEXTURE_PITCH_ALIGNMENT, &pitch_alignment},
                {COMPUTE_CAPABILITY_MAJOR, &found.major},
                {COMPUTE_CAPABILITY_MINOR, &found.minor}};
  CUresult result = cuInit(0);
  if (result == CUDA_SUCCESS) result = cuDeviceGet(&handle, device);
  if (result == CUDA_SUCCESS) result = cuDeviceGetName(found.name, sizeof found.name, handle);
  if (result == CUDA_SUCCESS) result = cuDeviceTotalMem_v2(&found.totalGlobalMem, handle);
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted && result == CUDA_SUCCESS; ++i)
    result = cuDeviceGetAttribute(wanted[i].value, wanted[i].which, handle);
  if (result != CUDA_SUCCESS) return remember(result);
  found.sharedMemPerBlock = (size_t)shared;
  found.totalConstMem = (size_t)constant;
  found.memPitch = (size_t)pitch;
  found.textureAlignment = (size_t)alignment;
  found.texturePitchAlignment = (size_t)pitch_alignment;
  memset(out, 0, PROPERTIES_BYTES);
  memcpy(out, &found, sizeof found);
  return cudaSuccess;
}

/* ---- memory ---- */

cudaError_t cudaMemGetInfo(size_t* available, size_t* total) { IN_CONTEXT(cuMemGetInfo_v2(available, total)); }

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  CUdeviceptr address = 0;
  CUresult result = enter();
  *memory = NULL;
  /* The driver refuses nothing at all; the runtime gives NULL for it. */
  if (result == CUDA_SUCCESS && bytes > 0) result = cuMemAlloc_v2(&address, bytes);
  if (result == CUDA_SUCCESS) *memory = (void*)(uintptr_t)address;
  return remember(result);
}

cudaError_t cudaFree(void* memory) { IN_CONTEXT(memory == NULL ? CUDA_SUCCESS : cuMemFree_v2((CUdeviceptr)(uintptr_t)memory)); }

cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  CUresult result = enter();
  *memory = NULL;
  if (result == CUDA_SUCCESS && bytes > 0) result = cuMemAllocHost_v2(memory, bytes);
  return remember(result);
}

cudaError_t cudaFreeHost(void* memory) { IN_CONTEXT(memory == NULL ? CUDA_SUCCESS : cuMemFreeHost(memory)); }

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, int kind, CUstream stream) {
  CUdeviceptr target = (CUdeviceptr)(uintptr_t)to, source = (CUdeviceptr)(uintptr_t)from;
  CUresult result = enter();
  if (result != CUDA_SUCCESS || bytes == 0) return remember(result);
  switch (kind) {
    case HOST_TO_DEVICE: return remember(cuMemcpyHtoDAsync_v2(target, from, bytes, stream));
    case DEVICE_TO_HOST: return remember(cuMemcpyDtoHAsync_v2(to, source, bytes, stream));
    case DEVICE_TO_DEVICE: return remember(cuMemcpyDtoDAsync_v2(target, source, bytes, stream));
    case HOST_TO_HOST:
    case BY_ADDRESS: return remember(cuMemcpyAsync(target, source, bytes, stream));
    default: return remember(cudaErrorInvalidMemcpyDirection);
  }
}

cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device, size_t bytes, CUstream stream) {
  CUcontext target = NULL, source = NULL;
  CUresult result = enter();
  if (result == CUDA_SUCCESS) result = primary(to_device, &target);
  if (result == CUDA_SUCCESS) result = primary(from_device, &source);
  if (result != CUDA_SUCCESS || bytes == 0) return remember(result);
  return remember(cuMemcpyPeerAsync((CUdeviceptr)(uintptr_t)to, target, (CUdeviceptr)(uintptr_t)from, source, bytes, stream));
}

/* ---- streams and events ---- */

cudaError_t cudaStreamCreate(CUstream* stream) { IN_CONTEXT(cuStreamCreate(stream, 0)); }

cudaError_t cudaStreamCreateWithFlags(CUstream* stream, unsigned flags) { IN_CONTEXT(cuStreamCreate(stream, flags)); }

cudaError_t cudaStreamDestroy(CUstream stream) { IN_CONTEXT(cuStreamDestroy_v2(stream)); }

cudaError_t cudaStreamSynchronize(CUstream stream) { IN_CONTEXT(cuStreamSynchronize(stream)); }

cudaError_t cudaStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
  IN_CONTEXT(cuStreamWaitEvent(stream, event, flags));
}

cudaError_t cudaEventCreate(CUevent* event) { IN_CONTEXT(cuEventCreate(event, 0)); }

cudaError_t cudaEventDestroy(CUevent event) { IN_CONTEXT(cuEventDestroy_v2(event)); }

cudaError_t cudaEventRecord(CUevent event, CUstream stream) { IN_CONTEXT(cuEventRecord(event, stream)); }

cudaError_t cudaEventSynchronize(CUevent event) { IN_CONTEXT(cuEventSynchronize(event)); }

cudaError_t cudaEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  IN_CONTEXT(cuEventElapsedTime(milliseconds, start, end));
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(CUstream stream, int mode) { IN_CONTEXT(cuStreamBeginCapture_v2(stream, mode)); }

cudaError_t cudaStreamEndCapture(CUstream stream, CUgraph* graph) { IN_CONTEXT(cuStreamEndCapture(stream, graph)); }

/* Flags came with CUDA 11.4: without any, this is what CUDA 10's driver does. */
cudaError_t cudaGraphInstantiate(CUgraphExec* executable, CUgraph graph, unsigned long long flags) {
  CUgraphNode node = NULL;
  char log[256];
  if (flags != 0) return remember(CUDA_ERROR_NOT_SUPPORTED);
  IN_CONTEXT(cuGraphInstantiate(executable, graph, &node, log, sizeof log));
}

cudaError_t cudaGraphLaunch(CUgraphExec executable, CUstream stream) { IN_CONTEXT(cuGraphLaunch(executable, stream)); }

cudaError_t cudaGraphExecDestroy(CUgraphExec executable) { IN_CONTEXT(cuGraphExecDestroy(executable)); }

cudaError_t cudaGraphDestroy(CUgraph graph) { IN_CONTEXT(cuGraphDestroy(graph)); }

/* ---- what newer drivers have, and TVM names ---- */

typedef struct {
  int id;
  char padding[4];
  union {
    char bytes[64];
    int cooperative;
    int serialised;
    struct {
      unsigned x, y, z;
    } cluster;
  } value;
} LaunchAttribute;

typedef struct {
  unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
  CUstream stream;
  const LaunchAttribute* attributes;
  unsigned count;
} LaunchConfig;

_Static_assert(sizeof(LaunchAttribute) == 72 && offsetof(LaunchConfig, stream) == 32, "laid out as in CUDA 13");

enum { IGNORE = 0, COOPERATIVE = 2, CLUSTER = 4, PROGRAMMATIC = 6, PREFERRED_CLUSTER = 11 };

/* A driver without this launches without clusters and without overlap of dependent kernels; whatever asks for more is refused.
 */
CUresult cuLaunchKernelEx(const LaunchConfig* config, CUfunction function, void** parameters, void** extra) {
  int together = 0;
  if (config == NULL) return CUDA_ERROR_INVALID_VALUE;
  for (unsigned i = 0; i < config->count; ++i) {
    const LaunchAttribute* given = &config->attributes[i];
    int single = given->value.cluster.x <= 1 && given->value.cluster.y <= 1 && given->value.cluster.z <= 1;
    if (given->id == COOPERATIVE)
      together = given->value.cooperative;
    else if ((given->id == CLUSTER || given->id == PREFERRED_CLUSTER) && !single)
      return CUDA_ERROR_NOT_SUPPORTED;
    else if (given->id == PROGRAMMATIC && given->value.serialised)
      return CUDA_ERROR_NOT_SUPPORTED;
    else if (given->id != IGNORE && given->id != CLUSTER && given->id != PREFERRED_CLUSTER && given->id != PROGRAMMATIC)
      return CUDA_ERROR_NOT_SUPPORTED;
  }
  if (together && extra == NULL)
    return cuLaunchCooperativeKernel(function, config->grid_x, config->grid_y, config->grid_z, config->block_x, config->block_y,
                                     config->block_z, config->shared_bytes, config->stream, parameters);
  if (together) return CUDA_ERROR_NOT_SUPPORTED;
  return cuLaunchKernel(function, config->grid_x, config->grid_y, config->grid_z, config->block_x, config->block_y,
                        config->block_z, config->shared_bytes, config->stream, parameters, extra);
}

/* Tensor maps are a matter of GPUs of compute capability 9.0, of which no driver lacks this. */
CUresult cuTensorMapEncodeTiled(void* map, int type, unsigned rank, void* address, const uint64_t* extents,
                                const uint64_t* strides, const unsigned* box, const unsigned* steps, int interleave,
                                int swizzle, int promotion, int fill) {
  (void)map, (void)type, (void)rank, (void)address, (void)extents, (void)strides, (void)box, (void)steps;
  (void)interleave, (void)swizzle, (void)promotion, (void)fill;
  return CUDA_ERROR_NOT_SUPPORTED;
}

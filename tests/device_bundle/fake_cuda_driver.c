/* A driver (libcuda.so.1) with CUDA 10.2's entry points, for machines without a GPU: memory is the host's, everything is done
   at once, and every call is written down. `fake_fail` makes the next call of one name fail. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_driver.h"

enum { NO_DEVICE = 100, DEVICES = 2, OUT_OF_MEMORY = 2, NOT_INITIALISED = 3, INVALID_CONTEXT = 201 };

static char calls[1 << 20];
static size_t used;
static char failing[64];
static int failing_error, initialised, devices = DEVICES;
static __thread CUcontext current;

/* Contexts, streams, events and so on: small numbers that a log can show. */
static uintptr_t next_handle = 0x1000;

static void* handle(void) { return (void*)(next_handle += 0x10); }

static CUresult note(const char* name, const char* format, ...) {
  va_list arguments;
  if (used > sizeof calls - 4096) used = 0; /* long sessions, of which nobody asks for all calls */
  used += (size_t)snprintf(calls + used, sizeof calls - used, "%s(", name);
  va_start(arguments, format);
  used += (size_t)vsnprintf(calls + used, sizeof calls - used, format, arguments);
  va_end(arguments);
  used += (size_t)snprintf(calls + used, sizeof calls - used, ")\n");
  if (getenv("FAKE_CUDA_LOG") != NULL) {
    /* For a program that cannot be asked afterwards. */
    FILE* file = fopen(getenv("FAKE_CUDA_LOG"), "w");
    if (file != NULL) {
      fputs(calls, file);
      fclose(file);
    }
  }
  if (strcmp(failing, name)) return CUDA_SUCCESS;
  failing[0] = '\0';
  return failing_error;
}

#define CALL(...)                                  \
  do {                                             \
    CUresult failed = note(__func__, __VA_ARGS__); \
    if (failed) return failed;                     \
    if (!initialised) return NOT_INITIALISED;      \
  } while (0)
#define CALL_IN_CONTEXT(...)                     \
  do {                                           \
    CALL(__VA_ARGS__);                           \
    if (current == NULL) return INVALID_CONTEXT; \
  } while (0)

const char* fake_calls(void) { return calls; }
void fake_forget(void) { calls[used = 0] = '\0'; }
void fake_devices(int count) { devices = count; }
void fake_fail(const char* name, int error) {
  snprintf(failing, sizeof failing, "%s", name);
  failing_error = error;
}

CUresult cuInit(unsigned flags) {
  (void)flags; /* called all the time: not noted */
  if (!strcmp(failing, "cuInit")) return failing_error;
  initialised = devices > 0;
  return initialised ? CUDA_SUCCESS : NO_DEVICE;
}
CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  *device = ordinal;
  return ordinal < 0 || ordinal >= devices ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int* count) {
  CALL("%s", "");
  *count = devices;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetName(char* name, int room, CUdevice device) {
  CALL("%d", device);
  snprintf(name, (size_t)room, "Fake %d", device);
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
  CALL("%d, %d", attribute, device);
  *value = attribute == 75 ? 5 : attribute == 76 ? 3 : attribute == 10 ? 32 : 1000 + attribute;
  return CUDA_SUCCESS;
}
CUresult cuGetExportTable(const void** table, const void* id) {
  (void)id; /* NVRTC asks every driver for tables of functions that have no names; it goes on without */
  *table = NULL;
  return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  CALL("%d", device);
  *bytes = (size_t)4 << 30;
  return CUDA_SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  CALL("%d", device);
  *context = (CUcontext)(uintptr_t)(0x100 + device);
  return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = current; /* called all the time: not noted */
  return initialised ? CUDA_SUCCESS : NOT_INITIALISED;
}
CUresult cuCtxSetCurrent(CUcontext context) {
  CALL("%p", (void*)context);
  current = context;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetDevice(CUdevice* device) {
  *device = (int)(uintptr_t)current - 0x100;
  return current != NULL ? CUDA_SUCCESS : INVALID_CONTEXT;
}
CUresult cuMemGetInfo_v2(size_t* available, size_t* total) {
  CALL_IN_CONTEXT("%s", "");
  *available = (size_t)3 << 30;
  *total = (size_t)4 << 30;
  return CUDA_SUCCESS;
}
CUresult cuMemAlloc_v2(CUdeviceptr* memory, size_t bytes) {
  void* found = NULL;
  CALL_IN_CONTEXT("%zu", bytes);
  if (bytes == 0) return CUDA_ERROR_INVALID_VALUE;
  if (posix_memalign(&found, 256, bytes)) return OUT_OF_MEMORY;
  *memory = (CUdeviceptr)(uintptr_t)found;
  return CUDA_SUCCESS;
}
CUresult cuMemFree_v2(CUdeviceptr memory) {
  CALL_IN_CONTEXT("%s", memory ? "memory" : "null");
  free((void*)(uintptr_t)memory);
  return CUDA_SUCCESS;
}
CUresult cuMemAllocHost_v2(void** memory, size_t bytes) {
  CALL_IN_CONTEXT("%zu", bytes);
  return (*memory = malloc(bytes)) != NULL ? CUDA_SUCCESS : OUT_OF_MEMORY;
}
CUresult cuMemFreeHost(void* memory) {
  CALL_IN_CONTEXT("%s", memory ? "memory" : "null");
  free(memory);
  return CUDA_SUCCESS;
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  CALL_IN_CONTEXT("%zu, %p", bytes, (void*)stream);
  memcpy((void*)(uintptr_t)to, from, bytes);
  return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  CALL_IN_CONTEXT("%zu, %p", bytes, (void*)stream);
  memcpy(to, (void*)(uintptr_t)from, bytes);
  return CUDA_SUCCESS;
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  CALL_IN_CONTEXT("%zu, %p", bytes, (void*)stream);
  memcpy((void*)(uintptr_t)to, (void*)(uintptr_t)from, bytes);
  return CUDA_SUCCESS;
}
CUresult cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  CALL_IN_CONTEXT("%zu, %p", bytes, (void*)stream);
  memcpy((void*)(uintptr_t)to, (void*)(uintptr_t)from, bytes);
  return CUDA_SUCCESS;
}
CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext target, CUdeviceptr from, CUcontext source, size_t bytes,
                           CUstream stream) {
  CALL_IN_CONTEXT("%p, %p, %zu, %p", (void*)target, (void*)source, bytes, (void*)stream);
  memcpy((void*)(uintptr_t)to, (void*)(uintptr_t)from, bytes);
  return CUDA_SUCCESS;
}
CUresult cuStreamCreate(CUstream* stream, unsigned flags) {
  CALL_IN_CONTEXT("%u", flags);
  *stream = handle();
  return CUDA_SUCCESS;
}
CUresult cuStreamDestroy_v2(CUstream stream) {
  CALL_IN_CONTEXT("%p", (void*)stream);
  return CUDA_SUCCESS;
}
CUresult cuStreamSynchronize(CUstream stream) {
  CALL_IN_CONTEXT("%p", (void*)stream);
  return CUDA_SUCCESS;
}
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
  CALL_IN_CONTEXT("%p, %p, %u", (void*)stream, (void*)event, flags);
  return CUDA_SUCCESS;
}
CUresult cuStreamBeginCapture_v2(CUstream stream, int mode) {
  CALL_IN_CONTEXT("%p, %d", (void*)stream, mode);
  return CUDA_SUCCESS;
}
CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  CALL_IN_CONTEXT("%p", (void*)stream);
  *graph = handle();
  return CUDA_SUCCESS;
}
CUresult cuEventCreate(CUevent* event, unsigned flags) {
  CALL_IN_CONTEXT("%u", flags);
  *event = handle();
  return CUDA_SUCCESS;
}
CUresult cuEventDestroy_v2(CUevent event) {
  CALL_IN_CONTEXT("%p", (void*)event);
  return CUDA_SUCCESS;
}
CUresult cuEventRecord(CUevent event, CUstream stream) {
  CALL_IN_CONTEXT("%p, %p", (void*)event, (void*)stream);
  return CUDA_SUCCESS;
}
CUresult cuEventSynchronize(CUevent event) {
  CALL_IN_CONTEXT("%p", (void*)event);
  return CUDA_SUCCESS;
}
CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  CALL_IN_CONTEXT("%p, %p", (void*)start, (void*)end);
  *milliseconds = 1.5f;
  return CUDA_SUCCESS;
}
CUresult cuGraphInstantiate(CUgraphExec* executable, CUgraph graph, CUgraphNode* node, char* log, size_t room) {
  CALL_IN_CONTEXT("%p, %s", (void*)graph, node != NULL && log != NULL && room > 0 ? "told" : "not told");
  *executable = handle();
  return CUDA_SUCCESS;
}
CUresult cuGraphLaunch(CUgraphExec executable, CUstream stream) {
  CALL_IN_CONTEXT("%p, %p", (void*)executable, (void*)stream);
  return CUDA_SUCCESS;
}
CUresult cuGraphExecDestroy(CUgraphExec executable) {
  CALL_IN_CONTEXT("%p", (void*)executable);
  return CUDA_SUCCESS;
}
CUresult cuGraphDestroy(CUgraph graph) {
  CALL_IN_CONTEXT("%p", (void*)graph);
  return CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void** parameters,
                        void** extra) {
  CALL_IN_CONTEXT("%p, %u %u %u, %u %u %u, %u, %p, %s, %s", (void*)function, grid_x, grid_y, grid_z, block_x, block_y, block_z,
                  shared_bytes, (void*)stream, parameters ? "parameters" : "none", extra ? "extra" : "none");
  return CUDA_SUCCESS;
}
CUresult cuLaunchCooperativeKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                                   unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream,
                                   void** parameters) {
  CALL_IN_CONTEXT("%p, %u %u %u, %u %u %u, %u, %p, %s", (void*)function, grid_x, grid_y, grid_z, block_x, block_y, block_z,
                  shared_bytes, (void*)stream, parameters ? "parameters" : "none");
  return CUDA_SUCCESS;
}
CUresult cuGetErrorName(CUresult error, const char** name) {
  *name = error == 777 ? "CUDA_ERROR_OF_THE_FAKE" : NULL;
  return *name != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
CUresult cuGetErrorString(CUresult error, const char** text) {
  *text = error == OUT_OF_MEMORY ? "out of memory" : NULL;
  return *text != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* What TVM calls of the driver itself. */
CUresult cuModuleLoadData(void** module, const void* image) {
  const char* text = image; /* PTX, with comments before what it is of */
  const char *version = strstr(text, ".version "), *target = strstr(text, ".target ");
  if (version == NULL || target == NULL) version = text, target = "";
  CALL_IN_CONTEXT("%.*s %.*s", (int)strcspn(version, "\n"), version, (int)strcspn(target, "\n"), target);
  *module = handle();
  return CUDA_SUCCESS;
}
CUresult cuModuleGetFunction(CUfunction* function, void* module, const char* name) {
  CALL_IN_CONTEXT("%p, %s", module, name);
  *function = handle();
  return CUDA_SUCCESS;
}
CUresult cuModuleUnload(void* module) {
  CALL_IN_CONTEXT("%p", module);
  return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value) {
  CALL_IN_CONTEXT("%p, %d, %d", (void*)function, attribute, value);
  return CUDA_SUCCESS;
}

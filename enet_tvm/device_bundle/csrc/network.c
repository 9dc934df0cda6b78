#define _GNU_SOURCE
#include "network.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exits.h"
#include "figures.h"
#include "tvm_arguments.h"

enum { POOLED_ALLOCATOR = 2, COMPUTE_VERSION = 4 /* DeviceAttrKind::kComputeVersion */ };

static TVMFFIObjectHandle need(const char* name) {
  TVMFFIObjectHandle function = tvm_global(name);
  if (function == NULL) die(1, "TVM's runtime has no function %s; unpack the bundle again", name);
  return function;
}

static TVMFFIAny call(TVMFFIObjectHandle function, const char* what, int count, TVMFFIAny* arguments) {
  char why[WHY];
  TVMFFIAny result;
  if (tvm_call(function, count, arguments, &result, why, sizeof why)) die(1, "%s failed: %s", what, why);
  return result;
}

/* A function of a module, owned; NULL if it has none of that name. */
static TVMFFIObjectHandle find_method(TVMFFIAny module, const char* name) {
  TVMFFIAny arguments[3] = {module, tvm_string(name), tvm_bool(1)};
  TVMFFIObjectHandle get = need("ffi.ModuleGetFunction");
  TVMFFIAny function = call(get, name, 3, arguments);
  TVMFFIObjectDecRef(get);
  return function.type_index == kTVMFFIFunction ? function.v_obj : NULL;
}

static TVMFFIObjectHandle method(TVMFFIAny module, const char* name) {
  TVMFFIObjectHandle function = find_method(module, name);
  if (function == NULL) die(1, "the library has no function %s; compile it again", name);
  return function;
}

static void invoke(const char* name, int count, TVMFFIAny* arguments, TVMFFIAny* result) {
  TVMFFIObjectHandle function = need(name);
  TVMFFIAny got = call(function, name, count, arguments);
  TVMFFIObjectDecRef(function);
  if (result != NULL)
    *result = got;
  else
    tvm_release(&got);
}

static TVMFFIAny allocate(const int64_t shape[4], int rank, TVMFFIAny dtype, int device) {
  TVMFFIAny extents[4], arguments[4], tensor;
  for (int i = 0; i < rank; ++i) extents[i] = tvm_int(shape[i]);
  invoke("ffi.Shape", rank, extents, &arguments[0]);
  arguments[1] = dtype;
  arguments[2] = tvm_device(device, 0);
  arguments[3] = tvm_none();
  invoke("runtime.TVMTensorAllocWithScope", 4, arguments, &tensor);
  tvm_release(&arguments[0]);
  return tensor;
}

static void copy(const char* function, TVMFFIAny tensor, void* memory, size_t bytes) {
  TVMFFIAny arguments[3] = {tensor, tvm_pointer(memory), tvm_int((int64_t)bytes)};
  invoke(function, 3, arguments, NULL);
}

/* Refuse device code for a later GPU than this one, which only later ones translate (enet_tvm/compatibility.py). */
static void check_gpu(const Manifest* manifest, const char* artifact) {
  TVMFFIAny asked[3] = {tvm_int(kDLCUDA), tvm_int(0), tvm_int(COMPUTE_VERSION)}, version;
  const char* text;
  size_t length;
  int needed, major, minor;
  char copy[16] = "";
  if (sscanf(manifest->gpu_arch, "sm_%d", &needed) != 1) return;
  invoke("runtime.GetDeviceAttr", 3, asked, &version);
  if (content(&version, &text, &length) == 0 && length < sizeof copy) memcpy(copy, text, length);
  if (sscanf(copy, "%d.%d", &major, &minor) == 2 && 10 * major + minor < needed)
    die(2, "%s was compiled for %s, and this machine's GPU is sm_%d%d, which is older; compile it for this board", artifact,
        manifest->gpu_arch, major, minor);
  tvm_release(&version);
}

void check_device(const Manifest* manifest, const char* artifact) {
  if (!manifest->gpu) return;
  if (dlopen("libtvm_runtime_cuda.so", RTLD_NOW | RTLD_GLOBAL) == NULL) die(1, "cannot load TVM's CUDA runtime: %s", dlerror());
  check_gpu(manifest, artifact);
}

void load_network(Network* network, const Manifest* manifest) {
  TVMFFIAny library, machine, arguments[6];
  int device = manifest->gpu ? kDLCUDA : kDLCPU;
  network->manifest = manifest;
  arguments[0] = tvm_string(manifest->library);
  invoke("ffi.ModuleLoadFromFile", 1, arguments, &library);
  machine = call(method(library, "vm_load_executable"), "vm_load_executable", 0, arguments);
  int devices = 0; /* a network on a GPU needs the processor too, for shapes */
  for (int type = device;; type = kDLCPU) {
    arguments[devices++] = tvm_int(type);
    arguments[devices++] = tvm_int(0);
    arguments[devices++] = tvm_int(POOLED_ALLOCATOR);
    if (type == kDLCPU) break;
  }
  TVMFFIAny none = call(method(machine, "vm_initialization"), "vm_initialization", devices, arguments);
  tvm_release(&none);
  network->main = method(machine, "main");
  network->sync = need("runtime.Device_StreamSync");
  network->device = tvm_device(device, 0);
  network->input = allocate(manifest->input, 4, tvm_dtype(kDLFloat, 32), device);
  network->result = tvm_none();
  const char* graph = getenv("ENET_TVM_CUDA_GRAPH"); /* set to 0, kernel by kernel: should a driver fail at graphs */
  network->frame = device == kDLCUDA && (graph == NULL || strcmp(graph, "0")) ? find_method(machine, "frame") : NULL;
  if (network->frame != NULL)
    network->output = manifest->labels ? allocate(manifest->output, 3, tvm_dtype(kDLUInt, 8), device)
                                       : allocate(manifest->output, 4, tvm_dtype(kDLFloat, 32), device);
}

void give_input(Network* network, const float* values) {
  copy("runtime.TVMTensorCopyFromBytes", network->input, (void*)values, network->manifest->input_bytes);
}

double compute(Network* network) {
  TVMFFIAny wait[2] = {network->device, tvm_int(0)};
  tvm_release(&network->result);
  double begin = milliseconds();
  if (network->frame != NULL) {
    TVMFFIAny arguments[2] = {network->input, network->output};
    TVMFFIAny nothing = call(network->frame, "the network", 2, arguments);
    tvm_release(&nothing);
    network->result = network->output;
    TVMFFIObjectIncRef(network->result.v_obj);
  } else {
    network->result = call(network->main, "the network", 1, &network->input);
  }
  TVMFFIAny none = call(network->sync, "waiting for the device", 2, wait);
  tvm_release(&none);
  return milliseconds() - begin;
}

void take_output(Network* network, void* results) {
  const Manifest* manifest = network->manifest;
  if (network->result.type_index != kTVMFFITensor) die(1, "the network returned no tensor; compile it again");
  const DLTensor* tensor = (const DLTensor*)((const char*)network->result.v_obj + sizeof(TVMFFIObject));
  int rank = manifest->labels ? 3 : 4;
  int fits = tensor->ndim == rank && tensor->dtype.code == (manifest->labels ? kDLUInt : kDLFloat) &&
             tensor->dtype.bits == (manifest->labels ? 8 : 32);
  for (int i = 0; i < rank && fits; ++i) fits = tensor->shape[i] == manifest->output[i];
  if (!fits) die(1, "the network's output is not what its manifest says; compile it again");
  copy("runtime.TVMTensorCopyToBytes", network->result, results, manifest->output_bytes);
}

long long threads_of_pool(void) {
  TVMFFIAny pool;
  invoke("runtime.NumThreads", 0, NULL, &pool);
  return (long long)pool.v_int64;
}

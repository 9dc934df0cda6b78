#define _GNU_SOURCE
#include "instrument.h"

#include <dlpack/dlpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tvm_arguments.h"
#include "tvm_call.h"

enum { WHY = 1024 };

static const char bookkeeping[] = "vm.builtin."; /* what else a machine calls: allocation, shapes, null values */

typedef struct {
  int device; /* DLPack's number */
  int64_t begin;
  Growing answer;
} Watch;

/* What kernels wrote, since the last call of keep_outputs. */
static struct {
  TVMFFIAny* tensors;
  size_t count, room;
} kept;

static int64_t nanoseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* Call a function of TVM's by name; what went wrong is raised. */
static int invoke(const char* name, int count, TVMFFIAny* arguments, TVMFFIAny* result) {
  char why[WHY];
  TVMFFIObjectHandle function = tvm_global(name);
  if (function == NULL) return refuse("TVM's runtime has no %s", name);
  int failed = tvm_call(function, count, arguments, result, why, sizeof why);
  TVMFFIObjectDecRef(function);
  return failed ? refuse("%s", why) : 0;
}

/* Return when the device has done all that it was given. */
static int wait_for(int device) {
  TVMFFIAny arguments[2] = {tvm_device(device, 0), tvm_int(0)}, none;
  if (invoke("runtime.Device_StreamSync", 2, arguments, &none)) return -1;
  tvm_release(&none);
  return 0;
}

/* What the machine tells an instrument: function, name, whether before the call, result, and the call's arguments.
   1 and the name of a kernel that has run, 0 for anything else, -1 for what a machine does not tell. */
static int has_run(const TVMFFIAny* arguments, int32_t count, const char** name, size_t* length, int* before) {
  if (count < 4 || content(arguments + 1, name, length)) return refuse("%s expected", "a machine's instrument's arguments");
  *before = arguments[2].v_int64 != 0;
  return !*before && (*length < sizeof bookkeeping - 1 || memcmp(*name, bookkeeping, sizeof bookkeeping - 1) != 0);
}

static void add_name(Growing* answer, const char* before, const char* name, size_t length) {
  grow(answer, "%s%s\"", answer->used > 1 ? ", " : "", before);
  for (size_t i = 0; i < length; ++i) {
    if (name[i] == '"' || name[i] == '\\')
      grow(answer, "\\%c", name[i]);
    else if ((unsigned char)name[i] >= ' ')
      grow(answer, "%c", name[i]);
  }
  grow(answer, "\"");
}

static int around_call(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  Watch* watch = self;
  const char* name;
  size_t length;
  int before;
  if (wait_for(watch->device)) return -1;
  int64_t now = nanoseconds();
  int kernel = has_run(arguments, count, &name, &length, &before);
  if (kernel < 0) return -1;
  if (kernel) {
    add_name(&watch->answer, "[", name, length);
    grow(&watch->answer, ", %.9f]", (double)(now - watch->begin) * 1e-9);
  }
  *result = tvm_int(0);
  if (before) watch->begin = nanoseconds();
  return 0;
}

static void forget_outputs(void) {
  for (size_t i = 0; i < kept.count; ++i) tvm_release(&kept.tensors[i]);
  kept.count = 0;
}

/* Keep a copy of a tensor in the processor's memory. */
static int keep(const TVMFFIAny* any, int device) {
  const DLTensor* tensor = any->type_index == kTVMFFITensor ? (const DLTensor*)((const char*)any->v_obj + sizeof(TVMFFIObject))
                           : any->type_index == kTVMFFIDLTensorPtr ? any->v_ptr
                                                                   : NULL;
  if (tensor == NULL || tensor->ndim > 8) return refuse("a kernel's last argument is no %s", "tensor");
  if (kept.count == kept.room) {
    size_t room = 2 * kept.room + 64;
    TVMFFIAny* larger = realloc(kept.tensors, room * sizeof *larger);
    if (larger == NULL) return refuse("the device has no memory for %s", "what kernels wrote");
    kept.tensors = larger;
    kept.room = room;
  }
  TVMFFIAny extents[8], allocation[4], copy, none;
  for (int i = 0; i < tensor->ndim; ++i) extents[i] = tvm_int(tensor->shape[i]);
  if (invoke("ffi.Shape", tensor->ndim, extents, &allocation[0])) return -1;
  allocation[1] = tvm_dtype(kDLFloat, 32);
  allocation[1].v_dtype = tensor->dtype;
  allocation[2] = tvm_device(kDLCPU, 0);
  allocation[3] = tvm_none();
  int failed = invoke("runtime.TVMTensorAllocWithScope", 4, allocation, &copy);
  tvm_release(&allocation[0]);
  if (failed) return -1;
  TVMFFIAny both[2] = {*any, copy};
  if (invoke("runtime.TVMTensorCopyFromTo", 2, both, &none) || wait_for(device)) {
    tvm_release(&copy);
    return -1;
  }
  kept.tensors[kept.count++] = copy;
  return 0;
}

static int after_call(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  Watch* watch = self;
  const char* name;
  size_t length;
  int before, kernel = has_run(arguments, count, &name, &length, &before);
  if (kernel < 0) return -1;
  if (kernel) {
    if (count < 5) return refuse("a kernel without %s", "arguments");
    if (keep(arguments + count - 1, watch->device)) return -1;
    add_name(&watch->answer, "", name, length);
  }
  *result = tvm_int(0);
  return 0;
}

/* A function of a virtual machine, owned. */
static int method(TVMFFIAny machine, const char* name, TVMFFIAny* function) {
  TVMFFIAny asked[3] = {machine, tvm_string(name), tvm_bool(1)};
  if (invoke("ffi.ModuleGetFunction", 3, asked, function)) return -1;
  if (function->type_index == kTVMFFIFunction) return 0;
  tvm_release(function);
  return refuse("the machine has no function %s", name);
}

/* Call a machine's function with an instrument that answers in JSON. */
static int watch_call(TVMFFISafeCallType instrument, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char name[256], kind[16], why[WHY];
  /* As long as the session: the machine goes on calling the instrument if its client calls it again. */
  static Watch watch;
  TVMFFIAny set, function, none, output, input, given = tvm_none();
  if (count != 4) return refuse("%s expected", "a machine, a name, an input and a kind of device");
  if (text_of(arguments + 1, 1, name, sizeof name) || text_of(arguments + 3, 1, kind, sizeof kind)) return -1;
  watch.device = strcmp(kind, "cuda") == 0 ? kDLCUDA : kDLCPU;
  watch.answer.used = 0;
  watch.answer.failed = 0;
  if (method(arguments[0], "set_instrument", &set)) return -1;
  given.type_index = kTVMFFIFunction;
  if (TVMFFIFunctionCreate(&watch, instrument, NULL, (TVMFFIObjectHandle*)&given.v_obj)) {
    tvm_release(&set);
    return -1;
  }
  int failed = tvm_call(set.v_obj, 1, &given, &none, why, sizeof why);
  tvm_release(&set);
  tvm_release(&given);
  if (failed) return refuse("%s", why);
  tvm_release(&none);
  if (method(arguments[0], name, &function)) return -1;
  grow(&watch.answer, "[");
  input = arguments[2];
  failed = tvm_call(function.v_obj, 1, &input, &output, why, sizeof why);
  tvm_release(&function);
  if (failed) return refuse("%s", why);
  tvm_release(&output);
  grow(&watch.answer, "]");
  return growing_result(&watch.answer, result);
}

int time_kernels(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  (void)self;
  return watch_call(around_call, arguments, count, result);
}

int keep_outputs(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  (void)self;
  forget_outputs();
  return watch_call(after_call, arguments, count, result);
}

int kernel_output(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char number[32];
  (void)self;
  if (count != 1 || arguments[0].type_index != kTVMFFIInt) return refuse("%s expected", "a kernel's number");
  int64_t at = arguments[0].v_int64;
  if (at < 0 || (uint64_t)at >= kept.count || kept.tensors[at].type_index == kTVMFFINone) {
    snprintf(number, sizeof number, "%lld", (long long)at);
    return refuse("no output of a kernel %s is kept", number);
  }
  *result = kept.tensors[at];
  kept.tensors[at] = tvm_none();
  return 0;
}

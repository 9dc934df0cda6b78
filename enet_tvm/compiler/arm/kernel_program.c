/* A program around one kernel that TVM compiled: it calls the kernel and nothing of TVM's runtime, so that an emulator has only
   the kernel's instructions to count.

       kernel CALLS TASK THREADS ARGUMENT...      an argument is CODE:BITS:EXTENT,EXTENT,... or that with =FILE at its end

   What is in FILE is the argument's value before the calls, and what it is after them is written to it.
   Of a parallel loop that THREADS threads would share it runs the part of one, the thread TASK. */
#include <dlpack/dlpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

enum { ALIGNMENT = 64, MOST_ARGUMENTS = 32, MOST_RANK = 8 };

typedef struct {
  void* barrier;
  int32_t tasks;
} Group;

extern int __tvm_ffi_main(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result);

static int task, threads;

static void die(const char* why) {
  fprintf(stderr, "%s\n", why);
  exit(1);
}

static int launch(int (*run)(int task, Group* group, void* data), void* data, int tasks) {
  Group group = {NULL, tasks > 0 ? tasks : threads};
  return task < group.tasks ? run(task, &group, data) : 0;
}

static void* allocate(int type, int id, uint64_t bytes, int code, int bits) {
  (void)type, (void)id, (void)code, (void)bits;
  return aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

static int give_back(int type, int id, void* memory) {
  (void)type, (void)id;
  free(memory);
  return 0;
}

/* What TVM's runtime would point to its own functions when it loads the kernel. */
void* __TVMBackendParallelLaunch = (void*)launch;
void* __TVMBackendAllocWorkspace = (void*)allocate;
void* __TVMBackendFreeWorkspace = (void*)give_back;

void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message) {
  (void)kind;
  die(message);
}

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  (void)kind;
  for (int32_t i = 0; i < count; ++i) fputs(parts[i], stderr);
  die("");
}

static void move_file(const char* file, const DLTensor* tensor, size_t bytes, int out) {
  FILE* stream = fopen(file, out ? "wb" : "rb");
  if (stream == NULL) die("there is no such file");
  size_t moved = out ? fwrite(tensor->data, 1, bytes, stream) : fread(tensor->data, 1, bytes, stream);
  if (fclose(stream) != 0 || moved != bytes) die("a file is not of the argument's size");
}

/* Returns the argument's bytes. */
static size_t make_argument(char* text, DLTensor* tensor) {
  char* rest = text;
  uint64_t elements = 1;
  memset(tensor, 0, sizeof *tensor);
  tensor->device.device_type = kDLCPU;
  tensor->dtype.code = (uint8_t)strtoul(rest, &rest, 10);
  tensor->dtype.bits = (uint8_t)strtoul(rest + 1, &rest, 10);
  tensor->dtype.lanes = 1;
  tensor->shape = malloc(MOST_RANK * sizeof *tensor->shape);
  while (*rest != '\0' && *rest != '=' && tensor->ndim < MOST_RANK && tensor->shape != NULL) {
    tensor->shape[tensor->ndim] = strtoll(rest + 1, &rest, 10);
    elements *= (uint64_t)tensor->shape[tensor->ndim++];
  }
  uint64_t bytes = elements * tensor->dtype.bits / 8;
  tensor->data = allocate(0, 0, bytes, 0, 0);
  if (tensor->data == NULL) die("there is no memory for the arguments");
  /* Small numbers in every type: 0.006 as float32, 0.97 as float16, and 60 as codes. */
  memset(tensor->data, 0x3b, bytes);
  return bytes;
}

int main(int count, char** texts) {
  static DLTensor tensors[MOST_ARGUMENTS];
  static TVMFFIAny arguments[MOST_ARGUMENTS];
  static const char* files[MOST_ARGUMENTS];
  static size_t bytes[MOST_ARGUMENTS];
  TVMFFIAny result;
  if (count < 4 || count - 4 > MOST_ARGUMENTS) die("calls, task, threads and arguments expected");
  task = atoi(texts[2]);
  threads = atoi(texts[3]);
  for (int i = 4; i < count; ++i) {
    char* file = strchr(texts[i], '=');
    bytes[i - 4] = make_argument(texts[i], &tensors[i - 4]);
    if (file != NULL) {
      files[i - 4] = file + 1;
      move_file(files[i - 4], &tensors[i - 4], bytes[i - 4], 0);
    }
    arguments[i - 4].type_index = kTVMFFIDLTensorPtr;
    arguments[i - 4].v_ptr = &tensors[i - 4];
  }
  for (int calls = atoi(texts[1]); calls > 0; --calls) {
    memset(&result, 0, sizeof result);
    if (__tvm_ffi_main(NULL, arguments, count - 4, &result)) die("the kernel failed");
  }
  for (int i = 0; i < count - 4; ++i) {
    if (files[i] != NULL) move_file(files[i], &tensors[i], bytes[i], 1);
  }
  return 0;
}

/* enet-run: runs a compiled network on a board that has no Python, and says how long it takes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cpus.h"
#include "files.h"
#include "manifest.h"
#include "pictures.h"
#include "text.h"
#include "tvm_arguments.h"
#include "tvm_call.h"

enum { WHY = 1024, POOLED_ALLOCATOR = 2, MOST_RUNS = 1000000, COMPUTE_VERSION = 4 /* DeviceAttrKind::kComputeVersion */ };

static const char usage[] =
    "usage: enet-run [options] ARTIFACT [INPUT]\n"
    "  ARTIFACT             directory that 'enet-tvm compile' wrote\n"
    "  INPUT                a .ppm picture of the network's size, or a .npy file of float32 N, C, H, W, normalised;\n"
    "                       without one, zeros\n"
    "  --runs N             time N runs (default 10)\n"
    "  --warmup N           runs before that are not timed (default 3)\n"
    "  --threads N          threads (default: the processors this process may use, or its CPU quota)\n"
    "  --labels FILE.pgm    write the class of every pixel\n"
    "  --logits FILE.npy    write the logits\n"
    "  --json FILE          write the figures\n"
    "  --version            print the versions\n";

static _Noreturn void die(int code, const char* format, ...) {
  char line[4 * WHY];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  make_printable(line); /* what files say is not for the terminal to obey */
  fprintf(stderr, "enet-run: error: %s\n", line);
  exit(code);
}

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

static double milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static int by_size(const void* a, const void* b) {
  double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

/* Between the two nearest of the sorted values, as numpy.percentile. */
static double percentile(const double* sorted, int count, double percent) {
  double at = percent / 100 * (count - 1);
  int below = (int)at;
  return below + 1 < count ? sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]) : sorted[below];
}

typedef struct {
  TVMFFIObjectHandle main, sync;
  TVMFFIObjectHandle frame; /* the whole network as one graph of a GPU, into an output that stays; NULL without one */
  TVMFFIAny input, output, device;
} Network;

static TVMFFIAny run(Network* network) {
  TVMFFIAny wait[2] = {network->device, tvm_int(0)}, output;
  if (network->frame != NULL) {
    TVMFFIAny arguments[2] = {network->input, network->output};
    TVMFFIAny nothing = call(network->frame, "the network", 2, arguments);
    tvm_release(&nothing);
    output = network->output;
    TVMFFIObjectIncRef(output.v_obj);
  } else {
    output = call(network->main, "the network", 1, &network->input);
  }
  TVMFFIAny none = call(network->sync, "waiting for the device", 2, wait);
  tvm_release(&none);
  return output;
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

static long number(const char* text, const char* option, long least, long most) {
  char* end;
  errno = 0;
  long value = strtol(text, &end, 10);
  if (end == text || *end || errno || value < least || value > most)
    die(2, "%s is %s and must be a number from %ld to %ld", option, text, least, most);
  return value;
}

static void put_json_string(FILE* file, const char* text) {
  fputc('"', file);
  for (; *text; ++text) fprintf(file, strchr("\"\\", *text) ? "\\%c" : "%c", *text);
  fputc('"', file);
}

static int ends_in(const char* path, const char* suffix) {
  size_t length = strlen(path), tail = strlen(suffix);
  return length > tail && strcmp(path + length - tail, suffix) == 0;
}

int main(int argc, char** argv) {
  enum { RUNS = 256, WARMUP, THREADS, LABELS, LOGITS, JSON, HELP, VERSION };
  static const struct option options[] = {
      {"runs", 1, NULL, RUNS},     {"warmup", 1, NULL, WARMUP},   {"threads", 1, NULL, THREADS},
      {"labels", 1, NULL, LABELS}, {"logits", 1, NULL, LOGITS},   {"json", 1, NULL, JSON},
      {"help", 0, NULL, HELP},     {"version", 0, NULL, VERSION}, {NULL, 0, NULL, 0}};
  long runs = 10, warmup = 3, threads = 0;
  int option;
  const char *labels = NULL, *logits = NULL, *json = NULL;
  char why[WHY], text[32];
  signal(SIGPIPE, SIG_IGN); /* a reader that has gone is an error of writing, and so a sentence */
  while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
    switch (option) {
      case RUNS: runs = number(optarg, "--runs", 1, MOST_RUNS); break;
      case WARMUP: warmup = number(optarg, "--warmup", 0, MOST_RUNS); break;
      case THREADS: threads = number(optarg, "--threads", 1, 1024); break;
      case LABELS: labels = optarg; break;
      case LOGITS: logits = optarg; break;
      case JSON: json = optarg; break;
      case HELP: return fputs(usage, stdout) < 0;
      case VERSION: return printf("enet-run for apache-tvm %s, apache-tvm-ffi %s\n", APACHE_TVM, APACHE_TVM_FFI) < 0;
      default: return fputs(usage, stderr), 2;
    }
  }
  if (argc - optind < 1 || argc - optind > 2) return fputs(usage, stderr), 2;
  const char *artifact = argv[optind], *input = argv[optind + 1];
  Manifest manifest;
  if (read_manifest(artifact, &manifest, why, sizeof why)) die(2, "%s", why);

  ThreadCount count;
  char processors[192];
  if (default_threads("", &count, why, sizeof why)) die(2, "%s", why);
  describe_threads(&count, processors, sizeof processors);
  if (threads > count.allowed)
    die(2, "cannot use %ld threads; give between 1 and %d, the processors this process may use (by default %s)", threads,
        count.allowed, processors);
  snprintf(text, sizeof text, "%ld", threads > 0 ? threads : (long)count.threads);
  setenv("TVM_NUM_THREADS", text, 1);
  setenv("TVM_THREAD_POOL_SPIN_COUNT", "4000", 0); /* idle workers sleep after about 2 ms, not after 160 */
  int device = manifest.gpu ? kDLCUDA : kDLCPU;
  if (device == kDLCUDA && dlopen("libtvm_runtime_cuda.so", RTLD_NOW | RTLD_GLOBAL) == NULL)
    die(1, "cannot load TVM's CUDA runtime: %s", dlerror());
  if (device == kDLCUDA) check_gpu(&manifest, artifact);

  if (logits != NULL && manifest.labels)
    die(2, "%s returns labels and has no logits to write; leave --logits out, or compile it with --output logits", artifact);
  float* values = calloc(1, manifest.input_bytes);
  void* results = malloc(manifest.output_bytes);
  double* times = malloc((size_t)runs * sizeof *times);
  if (values == NULL || results == NULL || times == NULL) die(1, "there is no memory for the input");
  if (input != NULL &&
      (ends_in(input, ".npy") ? read_npy(input, manifest.input, values, why, sizeof why)
                              : read_ppm(input, manifest.input, manifest.mean, manifest.std, values, why, sizeof why)))
    die(2, "%s", why);

  Network network;
  TVMFFIAny library, machine, arguments[6];
  arguments[0] = tvm_string(manifest.library);
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
  network.main = method(machine, "main");
  network.sync = need("runtime.Device_StreamSync");
  network.device = tvm_device(device, 0);
  network.input = allocate(manifest.input, 4, tvm_dtype(kDLFloat, 32), device);
  const char* graph = getenv("ENET_TVM_CUDA_GRAPH"); /* set to 0, kernel by kernel: should a driver fail at graphs */
  network.frame = device == kDLCUDA && (graph == NULL || strcmp(graph, "0")) ? find_method(machine, "frame") : NULL;
  if (network.frame != NULL)
    network.output = manifest.labels ? allocate(manifest.output, 3, tvm_dtype(kDLUInt, 8), device)
                                     : allocate(manifest.output, 4, tvm_dtype(kDLFloat, 32), device);
  copy("runtime.TVMTensorCopyFromBytes", network.input, values, manifest.input_bytes);

  TVMFFIAny output = tvm_none();
  double first = 0;
  for (long i = 0; i < warmup + runs; ++i) {
    tvm_release(&output);
    double begin = milliseconds();
    output = run(&network);
    double took = milliseconds() - begin;
    if (i == 0) first = took;
    if (i >= warmup) times[i - warmup] = took;
  }
  if (output.type_index != kTVMFFITensor) die(1, "the network returned no tensor; compile it again");
  const DLTensor* tensor = (const DLTensor*)((const char*)output.v_obj + sizeof(TVMFFIObject));
  int rank = manifest.labels ? 3 : 4;
  int fits = tensor->ndim == rank && tensor->dtype.code == (manifest.labels ? kDLUInt : kDLFloat) &&
             tensor->dtype.bits == (manifest.labels ? 8 : 32);
  for (int i = 0; i < rank && fits; ++i) fits = tensor->shape[i] == manifest.output[i];
  if (!fits) die(1, "the network's output is not what its manifest says; compile it again");
  copy("runtime.TVMTensorCopyToBytes", output, results, manifest.output_bytes);
  if (labels != NULL) {
    const int64_t* picture = manifest.output + (manifest.labels ? 1 : 2); /* height and width */
    unsigned char* classes = results;                                      /* of picture 0, the first plane */
    if (!manifest.labels) {
      size_t bytes;
      classes = bytes_of(picture, 2, 1, &bytes) ? NULL : malloc(bytes);
      if (classes == NULL) die(1, "there is no memory for the labels");
      most_likely(manifest.output, results, classes);
    }
    if (write_labels(labels, picture[1], picture[0], classes, why, sizeof why)) die(2, "%s", why);
  }
  if (logits != NULL && write_npy(logits, manifest.output, results, why, sizeof why)) die(2, "%s", why);

  qsort(times, (size_t)runs, sizeof *times, by_size);
  double p50 = percentile(times, (int)runs, 50), p90 = percentile(times, (int)runs, 90), p99 = percentile(times, (int)runs, 99);
  TVMFFIAny pool;
  invoke("runtime.NumThreads", 0, NULL, &pool);
  printf(
      "%s for %s at %lldx%lld on %s, %lld threads, %ld runs: p50 %.3f ms, p90 %.3f, p99 %.3f, fastest %.3f, slowest %.3f, "
      "first %.3f\n",
      artifact, manifest.target, (long long)manifest.input[3], (long long)manifest.input[2], device == kDLCUDA ? "cuda" : "cpu",
      (long long)pool.v_int64, runs, p50, p90, p99, times[0], times[runs - 1], first);
  if (json != NULL) {
    Output figures;
    if (begin_output(&figures, json, why, sizeof why)) die(2, "%s", why);
    fputs("{\"target\": ", figures.file);
    put_json_string(figures.file, manifest.target);
    int good = fprintf(figures.file,
                       ", \"device\": \"%s\", \"library\": \"%s\", \"threads\": %lld, \"processors\": \"%s\", \"runs\": %ld, \"p50_ms\": %.6f, "
                       "\"p90_ms\": %.6f, \"p99_ms\": %.6f, \"fastest_ms\": %.6f, \"slowest_ms\": %.6f, \"first_ms\": %.6f}\n",
                       device == kDLCUDA ? "cuda" : "cpu", manifest.hash, (long long)pool.v_int64, processors, runs, p50, p90, p99, times[0],
                       times[runs - 1], first) > 0;
    if (finish_output(&figures, good && !ferror(figures.file), why, sizeof why)) die(2, "%s", why);
  }
  fflush(stdout);
  /* Unloading what TVM's thread pool still uses serves nothing. */
  _Exit(ferror(stdout) ? 1 : 0);
}

/* enet-run: runs a compiled network on a board that has no Python, and says how long it takes. */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpus.h"
#include "exits.h"
#include "figures.h"
#include "files.h"
#include "image_output.h"
#include "labels.h"
#include "manifest.h"
#include "network.h"
#include "network_input.h"
#include "npy.h"
#include "overlay.h"
#include "picture_file.h"
#include "pool.h"
#include "watch.h"

enum { MOST_RUNS = 1000000, MOST_SIDE = 32768 };

static const char usage[] =
    "usage: enet-run [options] ARTIFACT [INPUT]\n"
    "       enet-run [options] --camera DEVICE ARTIFACT\n"
    "  ARTIFACT             directory that 'enet-tvm compile' wrote\n"
    "  INPUT                a JPEG, PNG or .ppm picture of any size, or a .npy file of float32 N, C, H, W, normalised;\n"
    "                       without one, zeros\n"
    "  --labels FILE        write the class of every pixel: .png, or .pgm\n"
    "  --overlay FILE       write the picture under the classes' colours: .png, or .ppm\n"
    "  --opacity X          of the colours: 0 shows the picture, 1 the colours only (default 0.5)\n"
    "  --logits FILE.npy    write the logits\n"
    "  --json FILE          write the figures\n"
    "  --runs N             time N runs (default 10)\n"
    "  --warmup N           runs before that are not timed (default 3)\n"
    "  --threads N          threads (default: the processors this process may use, or its CPU quota)\n"
    "  --camera DEVICE      segment what a V4L2 camera sees: /dev/video0, or its number; FILE of --labels and --overlay is then\n"
    "                       always of the newest frame, or with %d or %04d in its name, a file of each\n"
    "  --camera-size WxH    ask the camera for this size (default: the smallest that is not below the network's)\n"
    "  --frames N           end after N frames (default: with Ctrl-C)\n"
    "  --version            print the versions\n";

typedef struct {
  long runs, warmup, threads;
  const char *labels, *overlay, *logits, *json, *artifact, *input;
  double opacity;
  WatchRequest watch; /* without a device, where there is no camera */
} Request;

static long number(const char* text, const char* option, long least, long most) {
  char* end;
  errno = 0;
  long value = strtol(text, &end, 10);
  if (end == text || *end || errno || value < least || value > most)
    die(2, "%s is %s and must be a number from %ld to %ld", option, text, least, most);
  return value;
}

static double share(const char* text, const char* option) {
  char* end;
  double value = strtod(text, &end);
  if (end == text || *end || !(value >= 0 && value <= 1)) die(2, "%s is %s and must be between 0 and 1", option, text);
  return value;
}

static void sides(const char* text, const char* option, int* width, int* height) {
  char rest;
  int two = sscanf(text, "%5dx%5d%c", width, height, &rest) == 2;
  if (!two || *width < 1 || *height < 1 || *width > MOST_SIDE || *height > MOST_SIDE)
    die(2, "%s is %s and must be a width and a height, such as 1280x720", option, text);
}

/* The path of a picture to write; refused where its name promises what is not written. */
static const char* picture_name(const char* path, const char* option, const char* other) {
  static const char* const foreign[] = {".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".mp4"};
  for (size_t i = 0; i < sizeof foreign / sizeof *foreign; ++i)
    if (ends_in(path, foreign[i]))
      die(2, "%s is %s, and pictures are written as .png or %s; give such a name", option, path, other);
  return path;
}

static Request parse(int argc, char** argv) {
  enum { RUNS = 256, WARMUP, THREADS, LABELS, OVERLAY, OPACITY, LOGITS, JSON, CAMERA, CAMERA_SIZE, FRAMES, HELP, VERSION };
  static const struct option options[] = {{"runs", 1, NULL, RUNS},
                                          {"warmup", 1, NULL, WARMUP},
                                          {"threads", 1, NULL, THREADS},
                                          {"labels", 1, NULL, LABELS},
                                          {"overlay", 1, NULL, OVERLAY},
                                          {"opacity", 1, NULL, OPACITY},
                                          {"logits", 1, NULL, LOGITS},
                                          {"json", 1, NULL, JSON},
                                          {"camera", 1, NULL, CAMERA},
                                          {"camera-size", 1, NULL, CAMERA_SIZE},
                                          {"frames", 1, NULL, FRAMES},
                                          {"help", 0, NULL, HELP},
                                          {"version", 0, NULL, VERSION},
                                          {NULL, 0, NULL, 0}};
  Request request = {.runs = -1, .warmup = -1, .opacity = 0.5};
  WatchRequest* watch = &request.watch;
  int option;
  while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
    switch (option) {
      case RUNS: request.runs = number(optarg, "--runs", 1, MOST_RUNS); break;
      case WARMUP: request.warmup = number(optarg, "--warmup", 0, MOST_RUNS); break;
      case THREADS: request.threads = number(optarg, "--threads", 1, 1024); break;
      case LABELS: request.labels = picture_name(optarg, "--labels", ".pgm"); break;
      case OVERLAY: request.overlay = picture_name(optarg, "--overlay", ".ppm"); break;
      case OPACITY: request.opacity = share(optarg, "--opacity"); break;
      case LOGITS: request.logits = optarg; break;
      case JSON: request.json = optarg; break;
      case CAMERA: watch->device = optarg; break;
      case CAMERA_SIZE: sides(optarg, "--camera-size", &watch->width, &watch->height); break;
      case FRAMES: watch->frames = number(optarg, "--frames", 1, INT32_MAX); break;
      case HELP: exit(fputs(usage, stdout) < 0);
      case VERSION: exit(printf("enet-run for apache-tvm %s, apache-tvm-ffi %s\n", APACHE_TVM, APACHE_TVM_FFI) < 0);
      default: exit((fputs(usage, stderr), 2));
    }
  }
  int given = argc - optind;
  if (given < 1 || given > 2) exit((fputs(usage, stderr), 2));
  request.artifact = argv[optind];
  request.input = given == 2 ? argv[optind + 1] : NULL;
  if (watch->device != NULL && request.input != NULL)
    die(2, "the network sees either %s or what the camera sees; leave one out", request.input);
  if (watch->device != NULL && (request.logits != NULL || request.runs >= 0 || request.warmup >= 0))
    die(2, "--logits, --runs and --warmup are not for a camera; leave them out, or give a picture instead of --camera");
  if (watch->device == NULL && (watch->width || watch->frames))
    die(2, "--camera-size and --frames are for a camera; give --camera DEVICE too");
  if (request.overlay != NULL && watch->device == NULL && (request.input == NULL || ends_in(request.input, ".npy")))
    die(2, "--overlay lays colours over a picture; give a JPEG, PNG or .ppm picture");
  if (request.runs < 0) request.runs = 10;
  if (request.warmup < 0) request.warmup = 3;
  return request;
}

/* Bind the program to the cores that its network's target names, and make TVM's pool; what the processors allow goes to
   `processors`, what it is bound to, or why it is not, to `cores`. */
static void choose_threads(long wanted, const Manifest* manifest, char* processors, size_t size, char* cores, size_t room) {
  ThreadCount count;
  char why[WHY], bound[128];
  int here = bind_cores(manifest->cores, manifest->core_count, wanted, cores, room);
  if (here < 0) die(1, "cannot choose the processors: %s", strerror(errno));
  snprintf(bound, sizeof bound, "%.*s", (int)strcspn(cores, ":"), cores);
  if (default_threads("", here ? bound : NULL, &count, why, sizeof why)) die(2, "%s", why);
  describe_threads(&count, processors, size);
  if (wanted > count.allowed)
    die(2, "cannot use %ld threads; give between 1 and %d, the processors this process may use (by default %s)", wanted,
        count.allowed, processors);
  setenv("TVM_THREAD_POOL_SPIN_COUNT", "4000", 0); /* idle workers sleep after about 2 ms, not after 160 */
  if (make_pool(wanted > 0 ? wanted : count.threads, why, sizeof why)) die(1, "cannot make the threads: %s", why);
}

/* Fill the network's input from a file; `picture` becomes what it shows, and stays empty for an array. */
static void read_input(const char* path, const Manifest* manifest, float* values, Picture* picture) {
  char why[WHY];
  InputMaker maker;
  if (ends_in(path, ".npy")) {
    if (read_npy(path, manifest->input, values, why, sizeof why)) die(2, "%s", why);
    return;
  }
  if (read_picture(path, picture, why, sizeof why) || begin_inputs(manifest, path, &maker, why, sizeof why)) die(2, "%s", why);
  if (make_input(&maker, picture, values)) die(1, "there is no memory to resize %s", path);
}

static void write_results(const Request* request, const Manifest* manifest, Network* network, void* results, Picture* picture) {
  char why[WHY];
  LabelMaker maker = {0};
  const int64_t* own = manifest->output + (manifest->labels ? 1 : 2); /* height and width */
  int shown = picture->pixels != NULL, width = shown ? picture->width : (int)own[1], height = shown ? picture->height : (int)own[0];
  take_output(network, results);
  const unsigned char* labels = NULL;
  if (request->labels != NULL || request->overlay != NULL) {
    labels = labels_of(&maker, manifest, results, width, height);
    if (labels == NULL) die(1, "there is no memory for the labels");
  }
  if (request->labels != NULL && write_image(request->labels, width, height, 1, labels, why, sizeof why)) die(2, "%s", why);
  if (request->overlay != NULL) {
    lay_over(picture, labels, manifest->palette, request->opacity);
    if (write_image(request->overlay, width, height, 3, picture->pixels, why, sizeof why)) die(2, "%s", why);
  }
  if (request->logits != NULL && write_npy(request->logits, manifest->output, results, why, sizeof why)) die(2, "%s", why);
}

static void print_figures(const Request* request, const Manifest* manifest, double* times, double first, const char* processors,
                          const char* cores) {
  char why[WHY];
  const char* device = manifest->gpu ? "cuda" : "cpu";
  long runs = request->runs;
  sort_times(times, runs);
  double p50 = percentile(times, runs, 50), p90 = percentile(times, runs, 90), p99 = percentile(times, runs, 99);
  long long threads = threads_of_pool();
  int taken = is_stdout(request->overlay) || is_stdout(request->labels) || is_stdout(request->logits);
  fprintf(
      taken ? stderr : stdout,
      "%s for %s at %lldx%lld on %s, %lld threads%s%s, %ld runs: p50 %.3f ms, p90 %.3f, p99 %.3f, fastest %.3f, slowest %.3f, "
      "first %.3f\n",
      request->artifact, manifest->target, (long long)manifest->input[3], (long long)manifest->input[2], device, threads,
      cores[0] ? " on " : "", cores, runs, p50,
      p90, p99, times[0], times[runs - 1], first);
  if (request->json == NULL) return;
  Output figures;
  if (begin_output(&figures, request->json, why, sizeof why)) die(2, "%s", why);
  fputs("{\"target\": ", figures.file);
  put_json_string(figures.file, manifest->target);
  int good = fprintf(figures.file,
                     ", \"device\": \"%s\", \"library\": \"%s\", \"threads\": %lld, \"processors\": \"%s\", \"cores\": \"%s\", \"runs\": %ld, "
                     "\"p50_ms\": %.6f, \"p90_ms\": %.6f, \"p99_ms\": %.6f, \"fastest_ms\": %.6f, \"slowest_ms\": %.6f, "
                     "\"first_ms\": %.6f}\n",
                     device, manifest->hash, threads, processors, cores, runs, p50, p90, p99, times[0], times[runs - 1], first) > 0;
  if (finish_output(&figures, good && !ferror(figures.file), why, sizeof why)) die(2, "%s", why);
}

static void time_runs(const Request* request, const Manifest* manifest, const char* processors, const char* cores) {
  Picture picture = {0, 0, NULL};
  Network network;
  float* values = calloc(1, manifest->input_bytes);
  void* results = malloc(manifest->output_bytes);
  double* times = malloc((size_t)request->runs * sizeof *times);
  if (values == NULL || results == NULL || times == NULL) die(1, "there is no memory for the input");
  if (request->input != NULL) read_input(request->input, manifest, values, &picture);
  load_network(&network, manifest);
  give_input(&network, values);
  double first = 0;
  for (long i = 0; i < request->warmup + request->runs; ++i) {
    double took = compute(&network);
    if (i == 0) first = took;
    if (i >= request->warmup) times[i - request->warmup] = took;
  }
  write_results(request, manifest, &network, results, &picture);
  print_figures(request, manifest, times, first, processors, cores);
}

int main(int argc, char** argv) {
  Manifest manifest;
  char why[WHY], processors[192], cores[512];
  signal(SIGPIPE, SIG_IGN); /* a reader that has gone is an error of writing, and so a sentence */
  Request request = parse(argc, argv);
  if (read_manifest(request.artifact, &manifest, why, sizeof why)) die(2, "%s", why);
  choose_threads(request.threads, &manifest, processors, sizeof processors, cores, sizeof cores);
  check_device(&manifest, request.artifact);
  if (request.logits != NULL && manifest.labels)
    die(2, "%s returns labels and has no logits to write; leave --logits out, or compile it with --output logits",
        request.artifact);
  if (request.watch.device != NULL) {
    request.watch.labels = request.labels;
    request.watch.overlay = request.overlay;
    request.watch.json = request.json;
    request.watch.cores = cores;
    request.watch.opacity = request.opacity;
    watch(&request.watch, request.artifact, &manifest);
  } else {
    time_runs(&request, &manifest, processors, cores);
  }
  fflush(stdout);
  /* Unloading what TVM's thread pool still uses serves nothing. */
  _Exit(ferror(stdout) ? 1 : 0);
}

#define _GNU_SOURCE
#include "watch.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture.h"
#include "exits.h"
#include "figures.h"
#include "files.h"
#include "image_output.h"
#include "labels.h"
#include "network.h"
#include "network_input.h"
#include "overlay.h"
#include "text.h"

enum { SILENCE = 10000 /* ms without a frame that can be read */, TICK = 200, MOST_PATH = 4096 };

typedef struct {
  const WatchRequest* request;
  const char* artifact;
  const Manifest* manifest;
  Camera camera;
  Network network;
  InputMaker inputs;
  LabelMaker labels;
  float* values;
  void* results;
  /* From the moment a frame was taken to its labels' being written, and of that: making the input, the network, the results. */
  Times latency, prepare, network_times, finish;
  long frames, broken, dropped;
  double seconds; /* from the start to the last frame */
} Watch;

static volatile sig_atomic_t interrupted;

static void interrupt(int number) {
  (void)number;
  interrupted = 1;
}

/* The name of a frame's file: the first %d or %04d in it becomes the frame's number; any other % stays. */
static const char* name_of_frame(const char* path, long number, char out[MOST_PATH]) {
  for (const char* mark = strchr(path, '%'); mark != NULL; mark = strchr(mark + 1, '%')) {
    int digits = 0, used = 0;
    if (strncmp(mark, "%d", 2) == 0)
      used = 2;
    else if (sscanf(mark, "%%0%1dd%n", &digits, &used) != 1 || used == 0)
      continue;
    snprintf(out, MOST_PATH, "%.*s%0*ld%s", (int)(mark - path), path, digits, number, mark + used);
    return out;
  }
  return path;
}

static int write_frame(Watch* watch, Picture* picture, char* why, size_t size) {
  const WatchRequest* request = watch->request;
  char path[MOST_PATH];
  take_output(&watch->network, watch->results);
  const unsigned char* labels =
      labels_of(&watch->labels, watch->manifest, watch->results, picture->width, picture->height);
  if (labels == NULL) return fail(why, size, "there is no memory for the labels");
  if (request->labels != NULL && write_image(name_of_frame(request->labels, watch->frames + 1, path), picture->width,
                                             picture->height, 1, labels, why, size))
    return -1;
  if (request->overlay == NULL) return 0;
  lay_over(picture, labels, watch->manifest->palette, request->opacity);
  return write_image(name_of_frame(request->overlay, watch->frames + 1, path), picture->width, picture->height, 3, picture->pixels,
                     why, size);
}

/* One frame from the camera's buffer to its files; 0 if it was damaged and left out, -1 and a sentence if nothing goes on. */
static int see(Watch* watch, CameraFrame* frame, char* why, size_t size) {
  Picture picture;
  double begin = milliseconds();
  int decoded = decode_frame(&watch->camera, frame, &picture, why, size);
  give_back(&watch->camera, frame);
  if (decoded) return 0;
  if (make_input(&watch->inputs, &picture, watch->values)) return fail(why, size, "there is no memory to resize a frame");
  give_input(&watch->network, watch->values);
  double prepared = milliseconds();
  double took = compute(&watch->network);
  double computed = milliseconds();
  int failed = write_frame(watch, &picture, why, size);
  double done = milliseconds();
  free_picture(&picture);
  if (failed) return -1;
  add_time(&watch->prepare, prepared - begin);
  add_time(&watch->network_times, took);
  add_time(&watch->finish, done - computed);
  add_time(&watch->latency, done - frame->at);
  ++watch->frames;
  return 1;
}

static void show_progress(const Watch* watch, double* shown) {
  double now = milliseconds();
  if (now - *shown < 1000 || !isatty(STDERR_FILENO)) return;
  *shown = now;
  fprintf(stderr, "\r%ld frames, latency %.0f ms, %ld damaged \r", watch->frames, percentile_of(&watch->latency, 50),
          watch->broken);
}

/* Follow the camera to the end of it all; -1 and a sentence in `why` if it was not asked for. */
static int follow(Watch* watch, char* why, size_t size) {
  Capture capture;
  CameraFrame frame;
  char last[WHY] = "";
  int state = 0;
  if (begin_capture(&capture, &watch->camera, why, size)) return -1;
  double begin = milliseconds(), good = begin, shown = begin;
  while (state >= 0 && !interrupted && (watch->request->frames == 0 || watch->frames < watch->request->frames)) {
    state = take_newest(&capture, TICK, &frame, why, size);
    if (state > 0) {
      state = see(watch, &frame, last, sizeof last);
      if (state < 0) snprintf(why, size, "%s", last);
      if (state == 0) ++watch->broken;
      if (state > 0) {
        good = milliseconds();
        last[0] = '\0'; /* what was wrong before it is not why none follows */
      }
    }
    if (state == 0 && milliseconds() - good > SILENCE)
      state = fail(why, size, "camera %s gave no frame that can be read for %d seconds%s%s%s; check it and its cable",
                   watch->camera.name, SILENCE / 1000, last[0] ? " (" : "", last, last[0] ? ")" : "");
    show_progress(watch, &shown);
  }
  watch->seconds = (good - begin) / 1e3;
  watch->dropped = end_capture(&capture);
  return state < 0 ? -1 : 0;
}

static double rate_of(const Watch* watch) { return watch->seconds > 0 ? (double)watch->frames / watch->seconds : 0; }

static void print_figures(const Watch* watch, FILE* file) {
  const Manifest* manifest = watch->manifest;
  fprintf(file,
          "%s for %s at %lldx%lld on %s, %lld threads%s%s; camera %s, %dx%d %s: %ld frames, %.1f a second, %ld dropped, "
          "%ld damaged\n",
          watch->artifact, manifest->target, (long long)manifest->input[3], (long long)manifest->input[2],
          manifest->gpu ? "cuda" : "cpu", threads_of_pool(), watch->request->cores[0] ? " on " : "",
          watch->request->cores, watch->camera.name, watch->camera.format.width, watch->camera.format.height, watch->camera.jpeg ? "MJPEG" : "YUYV", watch->frames, rate_of(watch), watch->dropped,
          watch->broken);
  fprintf(file, "latency p50 %.1f ms, p90 %.1f, p99 %.1f; of that, input %.1f, network %.1f, labels and files %.1f (medians)\n",
          percentile_of(&watch->latency, 50), percentile_of(&watch->latency, 90), percentile_of(&watch->latency, 99),
          percentile_of(&watch->prepare, 50), percentile_of(&watch->network_times, 50), percentile_of(&watch->finish, 50));
}

static int write_figures(const Watch* watch, char* why, size_t size) {
  const struct {
    const char* name;
    const Times* times;
  } stages[] = {{"latency_ms", &watch->latency},
                {"input_ms", &watch->prepare},
                {"network_ms", &watch->network_times},
                {"results_ms", &watch->finish}};
  Output output;
  if (begin_output(&output, watch->request->json, why, size)) return -1;
  fputs("{\"target\": ", output.file);
  put_json_string(output.file, watch->manifest->target);
  fprintf(output.file, ", \"device\": \"%s\", \"library\": \"%s\", \"threads\": %lld, \"cores\": \"%s\", \"camera\": ",
          watch->manifest->gpu ? "cuda" : "cpu", watch->manifest->hash, threads_of_pool(), watch->request->cores);
  put_json_string(output.file, watch->camera.name);
  fprintf(output.file,
          ", \"size\": \"%dx%d\", \"format\": \"%s\", \"frames\": %ld, \"dropped\": %ld, \"damaged\": %ld, \"seconds\": %.6f, "
          "\"frames_per_second\": %.6f",
          watch->camera.format.width, watch->camera.format.height, watch->camera.jpeg ? "MJPEG" : "YUYV", watch->frames,
          watch->dropped, watch->broken, watch->seconds, rate_of(watch));
  for (size_t i = 0; i < sizeof stages / sizeof *stages; ++i) {
    fprintf(output.file, ", \"%s\": ", stages[i].name);
    put_times(output.file, stages[i].times);
  }
  fputs("}\n", output.file);
  return finish_output(&output, !ferror(output.file), why, size);
}

void watch(const WatchRequest* request, const char* artifact, const Manifest* manifest) {
  static Watch watch; /* it is large */
  char why[WHY], reason[WHY] = "";
  watch.request = request;
  watch.artifact = artifact;
  watch.manifest = manifest;
  if (begin_inputs(manifest, "a frame", &watch.inputs, why, sizeof why) ||
      open_camera(request->device, request->width, request->height, watch.inputs.width, watch.inputs.height, &watch.camera, why,
                  sizeof why))
    die(2, "%s", why);
  watch.values = calloc(1, manifest->input_bytes);
  watch.results = malloc(manifest->output_bytes);
  if (watch.values == NULL || watch.results == NULL) die(1, "there is no memory for the input");
  load_network(&watch.network, manifest);
  compute(&watch.network); /* the first pass takes longer, and no frame shall wait for it */
  /* The first ends it in order, and no file is cut by it; the second at once, should it wait for somebody to read a pipe. */
  struct sigaction action = {.sa_handler = interrupt, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  if (start_camera(&watch.camera, why, sizeof why)) die(2, "%s", why);
  int failed = follow(&watch, reason, sizeof reason);
  if (watch.frames > 0) {
    /* Where the pictures go to the standard output, the figures do not. */
    print_figures(&watch, is_stdout(request->overlay) || is_stdout(request->labels) ? stderr : stdout);
    if (request->json != NULL && write_figures(&watch, why, sizeof why)) die(2, "%s", why);
  }
  fflush(stdout);
  if (failed) die(2, "%s", reason);
  if (watch.frames == 0) die(2, "it was ended before camera %s gave a frame", watch.camera.name);
  close_camera(&watch.camera);
}

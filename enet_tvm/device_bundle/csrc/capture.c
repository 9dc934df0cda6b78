#define _GNU_SOURCE
#include "capture.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "text.h"

enum { TICK = 100 }; /* milliseconds, after which the thread looks whether it is to end */

static void* follow(void* argument) {
  Capture* capture = argument;
  CameraFrame frame;
  char why[sizeof capture->why] = "";
  unsigned expected = 0;
  for (long count = 0;;) {
    int got = next_frame(capture->camera, TICK, &frame, why, sizeof why);
    pthread_mutex_lock(&capture->lock);
    if (got > 0) {
      int ahead = (int)(frame.sequence - expected); /* of a counter that begins anew, or of none, nothing is said */
      if (count++ > 0 && ahead > 0) capture->dropped += ahead;
      expected = frame.sequence + 1;
      if (capture->waiting) {
        give_back(capture->camera, &capture->newest);
        ++capture->dropped;
      }
      capture->newest = frame;
      capture->waiting = 1;
    } else if (got < 0) {
      memcpy(capture->why, why, sizeof why);
      capture->ended = 1;
    }
    int stop = capture->stopping || capture->ended;
    pthread_cond_signal(&capture->changed);
    pthread_mutex_unlock(&capture->lock);
    if (stop) return NULL;
  }
}

int begin_capture(Capture* capture, Camera* camera, char* why, size_t size) {
  pthread_condattr_t attributes;
  memset(capture, 0, sizeof *capture);
  capture->camera = camera;
  pthread_mutex_init(&capture->lock, NULL);
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&capture->changed, &attributes);
  pthread_condattr_destroy(&attributes);
  if (pthread_create(&capture->thread, NULL, follow, capture) == 0) return 0;
  return fail(why, size, "there is no thread to follow camera %s with", camera->name);
}

int take_newest(Capture* capture, int timeout, CameraFrame* frame, char* why, size_t size) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  long nanoseconds = until.tv_nsec + timeout % 1000 * 1000000L;
  until.tv_sec += timeout / 1000 + nanoseconds / 1000000000;
  until.tv_nsec = nanoseconds % 1000000000;
  int result = 0, late = 0;
  pthread_mutex_lock(&capture->lock);
  while (!capture->waiting && !capture->ended && !late)
    late = pthread_cond_timedwait(&capture->changed, &capture->lock, &until) != 0;
  if (capture->waiting) { /* also the last of a camera that is gone */
    *frame = capture->newest;
    capture->waiting = 0;
    result = 1;
  } else if (capture->ended) {
    result = fail(why, size, "%s", capture->why);
  }
  pthread_mutex_unlock(&capture->lock);
  return result;
}

long end_capture(Capture* capture) {
  pthread_mutex_lock(&capture->lock);
  capture->stopping = 1;
  pthread_mutex_unlock(&capture->lock);
  pthread_join(capture->thread, NULL);
  return capture->dropped;
}

/* The newest frame of a camera, held ready by a thread of its own; older ones are given back to the camera unseen. */
#ifndef ENET_TVM_CAPTURE_H
#define ENET_TVM_CAPTURE_H

#include <pthread.h>

#include "camera.h"

typedef struct {
  Camera* camera;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  CameraFrame newest;
  int waiting;  /* whether `newest` is one that nobody has taken */
  int stopping; /* whether the thread is to end */
  int ended;    /* whether the camera is gone, as `why` says */
  long dropped; /* frames that nobody has seen, those that the driver had no buffer for among them */
  char why[512];
} Capture;

/* Begin to take frames; -1 and a sentence in `why`. */
int begin_capture(Capture* capture, Camera* camera, char* why, size_t size);

/* Wait up to `timeout` milliseconds for a frame that is newer than the last. 1 and the frame, which is to be given back with
   `give_back`; 0 if there is none; -1 and a sentence in `why` if the camera is gone. */
int take_newest(Capture* capture, int timeout, CameraFrame* frame, char* why, size_t size);

/* End the thread; the number of frames that were dropped. */
long end_capture(Capture* capture);

#endif

/* Following a camera: frame after frame through the network, until so many are seen, Ctrl-C, or the camera is gone. */
#ifndef ENET_TVM_WATCH_H
#define ENET_TVM_WATCH_H

#include "manifest.h"

typedef struct {
  const char* device; /* "/dev/video0", or "0" */
  int width, height;  /* of its frames; 0 for what suits the network */
  long frames;        /* after which to end; 0 for none */
  const char *labels, *overlay, *json; /* files to write; NULL for none */
  const char* cores;  /* what the threads are bound to, or why not, in words; empty where the target names none */
  double opacity;
} WatchRequest;

/* Follow a camera and print the figures; ends the program with 2 if the camera ends it. */
void watch(const WatchRequest* request, const char* artifact, const Manifest* manifest);

#endif

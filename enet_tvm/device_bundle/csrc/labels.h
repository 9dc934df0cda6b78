/* Label maps from a network's output. */
#ifndef ENET_TVM_LABELS_H
#define ENET_TVM_LABELS_H

#include <stddef.h>

#include "manifest.h"

/* The memory in which label maps are made. */
typedef struct {
  unsigned char *own, *resized;
  size_t room; /* of `resized`, which grows as needed */
} LabelMaker;

/* The class of every pixel of picture 0 of a network's output, brought to a size, width x height; NULL if there is no memory.
   It stays until the next call. */
const unsigned char* labels_of(LabelMaker* maker, const Manifest* manifest, const void* output, int width, int height);

#endif

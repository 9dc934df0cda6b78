#include "labels.h"

#include <stdlib.h>

#include "files.h"
#include "resample.h"

/* The class with the largest logit of every pixel of picture 0, the first of equals: some pixels at a time, so that their
   logits are read one beside the other and the compiler compares several at once. */
static void most_likely(const int64_t shape[4], const float* logits, unsigned char* labels) {
  enum { TOGETHER = 256 };
  size_t plane = (size_t)(shape[2] * shape[3]);
  for (size_t at = 0; at < plane; at += TOGETHER) {
    float best[TOGETHER];
    size_t count = plane - at < TOGETHER ? plane - at : TOGETHER;
    for (size_t i = 0; i < count; ++i) {
      best[i] = logits[at + i];
      labels[at + i] = 0;
    }
    for (int c = 1; c < (int)shape[1]; ++c) {
      const float* values = logits + (size_t)c * plane + at;
      for (size_t i = 0; i < count; ++i) {
        int higher = values[i] > best[i];
        labels[at + i] = higher ? (unsigned char)c : labels[at + i];
        best[i] = higher ? values[i] : best[i];
      }
    }
  }
}

const unsigned char* labels_of(LabelMaker* maker, const Manifest* manifest, const void* output, int width, int height) {
  const int64_t* picture = manifest->output + (manifest->labels ? 1 : 2); /* height and width */
  const unsigned char* classes = output;                                  /* of picture 0, the first plane */
  size_t bytes;
  if (!manifest->labels) {
    if (maker->own == NULL && bytes_of(picture, 2, 1, &bytes) == 0) maker->own = malloc(bytes);
    if (maker->own == NULL) return NULL;
    most_likely(manifest->output, output, maker->own);
    classes = maker->own;
  }
  if (picture[0] == height && picture[1] == width) return classes;
  bytes = (size_t)width * (size_t)height;
  if (bytes > maker->room) {
    free(maker->resized);
    maker->resized = malloc(bytes);
    maker->room = maker->resized != NULL ? bytes : 0;
  }
  if (maker->resized == NULL) return NULL;
  resize_labels(classes, (int)picture[1], (int)picture[0], width, height, maker->resized);
  return maker->resized;
}

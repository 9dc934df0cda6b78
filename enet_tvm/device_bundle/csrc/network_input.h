/* Pictures as a network takes them: at its size, scaled to 0..1, normalised. */
#ifndef ENET_TVM_NETWORK_INPUT_H
#define ENET_TVM_NETWORK_INPUT_H

#include <stdint.h>

#include "manifest.h"
#include "picture.h"

/* What turns pictures into one network's inputs, with the memory for it. */
typedef struct {
  int width, height;
  float scale[3], shift[3];
  unsigned char* pixels; /* a picture at the network's size */
} InputMaker;

/* Make one for a network of one picture at a time; -1 and a sentence about the picture `name` in `why`. */
int begin_inputs(const Manifest* manifest, const char* name, InputMaker* maker, char* why, size_t size);

/* Fill `out` (1, 3, H, W) with a picture; -1 if there is no memory. */
int make_input(const InputMaker* maker, const Picture* picture, float* out);

#endif

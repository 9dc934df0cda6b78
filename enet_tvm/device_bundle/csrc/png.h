/* PNG pictures (RFC 2083): of any depth, with palettes, interlaced; what is transparent is laid on black, as Python does it. */
#ifndef ENET_TVM_PNG_H
#define ENET_TVM_PNG_H

#include "picture.h"

/* Whether data begin as a PNG picture does. */
int is_png(const unsigned char* data, size_t length);

/* Decode a whole PNG picture as it is stored; `orientation` becomes what its metadata say of that, 0 if nothing. -1 and a
   sentence about `name` in `why`; also if a checksum differs, or it is an animation of several pictures. */
int decode_png(const unsigned char* data, size_t length, const char* name, Picture* picture, int* orientation, char* why,
               size_t size);

#endif

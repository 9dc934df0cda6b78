/* Portable pixmaps (netpbm's ppm), binary and of 8 bits. */
#ifndef ENET_TVM_PPM_H
#define ENET_TVM_PPM_H

#include "picture.h"

/* Whether data begin with the magic number P6. */
int is_ppm(const unsigned char* data, size_t length);

/* Decode a .ppm picture; -1 and a sentence about `name` in `why`. */
int decode_ppm(const unsigned char* data, size_t length, const char* name, Picture* picture, char* why, size_t size);

#endif

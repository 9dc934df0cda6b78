/* Pictures of cameras that send YUYV: four bytes for two pixels, luminance of each and the chrominance of both. */
#ifndef ENET_TVM_YUYV_H
#define ENET_TVM_YUYV_H

#include "picture.h"

typedef struct {
  int width, height;
  size_t stride;   /* bytes from row to row */
  int bt709, full; /* whether colours are ITU-R BT.709's, else BT.601's; whether luminance is 0..255, else 16..235 */
} YuyvFormat;

/* Decode a frame; -1 and a sentence about `name` in `why` if it has too few bytes, or there is no memory. */
int decode_yuyv(const unsigned char* data, size_t length, const YuyvFormat* format, const char* name, Picture* picture, char* why,
                size_t size);

#endif

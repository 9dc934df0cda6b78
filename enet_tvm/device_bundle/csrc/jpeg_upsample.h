/* Chroma of JPEG pictures at the picture's size, to the bit as libjpeg computes it by default ("fancy upsampling"). */
#ifndef ENET_TVM_JPEG_UPSAMPLE_H
#define ENET_TVM_JPEG_UPSAMPLE_H

#include <stddef.h>

/* A component as it was decoded. */
typedef struct {
  const unsigned char* samples;
  size_t stride;
  int width, height;           /* of the samples that belong to the picture */
  int across, down;            /* how many pixels a sample stands for */
} Component;

/* Write row `y` of a component at the picture's size: width x across samples. */
void upsample_row(const Component* component, int y, unsigned char* out);

#endif

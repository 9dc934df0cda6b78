/* Pictures and label maps as files: PNG where the name ends in .png, else netpbm's .ppm and .pgm. */
#ifndef ENET_TVM_IMAGE_OUTPUT_H
#define ENET_TVM_IMAGE_OUTPUT_H

#include <stddef.h>

/* Whether a path ends in a suffix such as ".png", in capitals or not. */
int ends_in(const char* path, const char* suffix);

/* Write width x height pixels of 1 (grey) or 3 channels (RGB); the file appears complete or not at all. -1 and a sentence in
   `why`. */
int write_image(const char* path, int width, int height, int channels, const unsigned char* pixels, char* why, size_t size);

#endif

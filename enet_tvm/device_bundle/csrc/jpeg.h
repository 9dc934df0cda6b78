/* JPEG pictures, to the pixel as libjpeg-turbo decodes them: baseline and progressive; grey, YCbCr, RGB, CMYK and YCCK. */
#ifndef ENET_TVM_JPEG_H
#define ENET_TVM_JPEG_H

#include "picture.h"

/* Whether data begin as a JPEG picture does. */
int is_jpeg(const unsigned char* data, size_t length);

/* Decode a whole JPEG picture as it is stored; `orientation` becomes what its metadata say of that, 0 if nothing. Frames of
   cameras, which leave out the usual Huffman tables, are whole, too. -1 and a sentence about `name` in `why`. */
int decode_jpeg(const unsigned char* data, size_t length, const char* name, Picture* picture, int* orientation, char* why,
                size_t size);

#endif

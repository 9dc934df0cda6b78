/* Picture files of the kinds that cameras and people have. */
#ifndef ENET_TVM_PICTURE_FILE_H
#define ENET_TVM_PICTURE_FILE_H

#include "picture.h"

/* Read a JPEG, PNG or .ppm picture, told apart by their content, and turn it upright as its metadata say. -1 and a sentence in
   `why`. */
int read_picture(const char* path, Picture* picture, char* why, size_t size);

#endif

/* A picture in memory, 8-bit RGB. */
#ifndef ENET_TVM_PICTURE_H
#define ENET_TVM_PICTURE_H

#include <stddef.h>

/* The largest picture that is read: beyond it, Pillow speaks of a decompression bomb. */
enum { MOST_PIXELS = 178956970 };

typedef struct {
  int width, height;
  unsigned char* pixels; /* height x width x 3, from the top left; freed by free_picture */
} Picture;

/* Make room for a picture; -1 and a sentence about `name` in `why` if it is empty, too large, or there is no memory. */
int make_picture(Picture* picture, long long width, long long height, const char* name, char* why, size_t size);

void free_picture(Picture* picture);

/* Turn and mirror a picture as an EXIF orientation, 1 to 8, says; any other leaves it. -1 if there is no memory. */
int turn_upright(Picture* picture, int orientation);

#endif

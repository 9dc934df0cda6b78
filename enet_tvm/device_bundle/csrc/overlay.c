#include "overlay.h"

#include <math.h>

void lay_over(Picture* picture, const unsigned char* labels, const unsigned char palette[256][3], double opacity) {
  int width = picture->width, height = picture->height;
  unsigned weight = (unsigned)rint(opacity * 256); /* finer than a grey level; halves go to the even number, as in Python */
  int thickness = (int)rint((width < height ? width : height) / 400.0);
  if (thickness < 1) thickness = 1;
  unsigned char* pixel = picture->pixels;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x, pixel += 3) {
      const unsigned char* label = labels + (size_t)y * (size_t)width + (size_t)x;
      int edge = 0; /* whether another segment begins within a few pixels to the right or below */
      for (int step = 1; step <= thickness && opacity > 0 && !edge; ++step)
        edge = (x + step < width && label[step] != *label) || (y + step < height && label[(size_t)step * (size_t)width] != *label);
      const unsigned char* colour = palette[*label];
      for (int c = 0; c < 3; ++c)
        pixel[c] = edge ? colour[c] : (unsigned char)((pixel[c] * (256 - weight) + colour[c] * weight) >> 8);
    }
}

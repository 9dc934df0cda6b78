/* Pictures and label maps at another size, to the pixel as Pillow makes them. */
#ifndef ENET_TVM_RESAMPLE_H
#define ENET_TVM_RESAMPLE_H

#include "picture.h"

/* Bring a picture to another size: every pixel is the mean of those around its place, weighted by a triangle that is as wide as
   the reduction asks for (Pillow's BILINEAR). -1 if there is no memory. `out` is height x width x 3. */
int resize_picture(const Picture* picture, int width, int height, unsigned char* out);

/* Bring a label map to another size: every pixel takes the label nearest to its centre. */
void resize_labels(const unsigned char* labels, int width, int height, int new_width, int new_height, unsigned char* out);

#endif

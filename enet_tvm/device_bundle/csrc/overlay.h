/* A label map in its classes' colours over its picture: enet_tvm.runtime.overlay, without the legend. */
#ifndef ENET_TVM_OVERLAY_H
#define ENET_TVM_OVERLAY_H

#include "picture.h"

/* Lay the colours over a picture, in place, with a line of full colour around every segment.

   labels    the class of every pixel, of the picture's size
   palette   the RGB colours of 256 classes, black where there is none
   opacity   0 shows the picture, 1 the colours only */
void lay_over(Picture* picture, const unsigned char* labels, const unsigned char palette[256][3], double opacity);

#endif

/* How a picture is to be turned, as its EXIF or XMP metadata say. */
#ifndef ENET_TVM_EXIF_H
#define ENET_TVM_EXIF_H

#include <stddef.h>

/* The orientation, 1 to 8, in EXIF data that begin with a TIFF header; 0 if they say none, or are damaged. */
int exif_orientation(const unsigned char* data, size_t length);

/* The orientation, 1 to 8, in an XMP packet; 0 if it says none. */
int xmp_orientation(const unsigned char* data, size_t length);

#endif

/* The inverse discrete cosine transform of JPEG blocks, to the bit as libjpeg computes it by default ("islow"). */
#ifndef ENET_TVM_JPEG_IDCT_H
#define ENET_TVM_JPEG_IDCT_H

/* Write the 8 x 8 samples of a block of dequantised coefficients, in natural order, to rows that are `stride` apart. */
void jpeg_idct(unsigned char* out, int stride, short coefficients[64]);

#endif

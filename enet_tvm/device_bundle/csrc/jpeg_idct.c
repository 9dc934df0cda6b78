#include "jpeg_idct.h"

#include <stdint.h>

/* Loeffler, Ligtenberg and Moschytz, "Practical fast 1-D DCT algorithms with 11 multiplications", ICASSP 1989, with constants
   of 13 bits of fraction; 2 more bits are kept between the columns and the rows. Unsigned, because what damaged files hold
   may overflow, and any value will do then. */
enum { FRACTION = 13, KEPT = 2 };

#define FIXED(x) ((uint32_t)((x) * (1 << FRACTION) + 0.5))

static int32_t descale(uint32_t value, int bits) { return (int32_t)(value + (UINT32_C(1) << (bits - 1))) >> bits; }

/* Transform the columns of `in` to the rows of `out`: twice, and both directions are done. */
static void transform(const int32_t in[64], int32_t out[64], int bits) {
  for (int i = 0; i < 8; ++i) {
    const int32_t* p = in + i;
    uint32_t v0 = (uint32_t)p[0], v1 = (uint32_t)p[8], v2 = (uint32_t)p[16], v3 = (uint32_t)p[24], v4 = (uint32_t)p[32],
             v5 = (uint32_t)p[40], v6 = (uint32_t)p[48], v7 = (uint32_t)p[56];
    uint32_t turn = (v2 + v6) * FIXED(0.541196100);
    uint32_t e2 = turn - v6 * FIXED(1.847759065), e3 = turn + v2 * FIXED(0.765366865);
    uint32_t e0 = (v0 + v4) << FRACTION, e1 = (v0 - v4) << FRACTION;
    uint32_t even[4] = {e0 + e3, e1 + e2, e1 - e2, e0 - e3};
    uint32_t z5 = (v7 + v3 + v5 + v1) * FIXED(1.175875602);
    uint32_t z1 = (v7 + v1) * FIXED(0.899976223), z2 = (v5 + v3) * FIXED(2.562915447);
    uint32_t z3 = z5 - (v7 + v3) * FIXED(1.961570560), z4 = z5 - (v5 + v1) * FIXED(0.390180644);
    uint32_t odd[4] = {v1 * FIXED(1.501321110) - z1 + z4, v3 * FIXED(3.072711026) - z2 + z3,
                       v5 * FIXED(2.053119869) - z2 + z4, v7 * FIXED(0.298631336) - z1 + z3};
    for (int k = 0; k < 4; ++k) {
      out[8 * i + k] = descale(even[k] + odd[k], bits);
      out[8 * i + 7 - k] = descale(even[k] - odd[k], bits);
    }
  }
}

static unsigned char sample(int32_t value) {
  if (value < -128) return 0;
  return value > 127 ? 255 : (unsigned char)(value + 128);
}

void jpeg_idct(unsigned char* out, int stride, short coefficients[64]) {
  int32_t values[64], columns[64];
  int others = 0;
  for (int i = 1; i < 64; ++i) others |= coefficients[i];
  if (others == 0) { /* a flat block, as many are */
    unsigned char flat = sample(descale((uint32_t)coefficients[0] << KEPT, KEPT + 3));
    for (int i = 0; i < 64; ++i) out[i / 8 * stride + i % 8] = flat;
    return;
  }
  for (int i = 0; i < 64; ++i) values[i] = coefficients[i];
  transform(values, columns, FRACTION - KEPT);
  transform(columns, values, FRACTION + KEPT + 3);
  for (int y = 0; y < 8; ++y)
    for (int x = 0; x < 8; ++x) out[y * stride + x] = sample(values[8 * y + x]);
}

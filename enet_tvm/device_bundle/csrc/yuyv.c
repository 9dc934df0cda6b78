#include "yuyv.h"

#include <math.h>

#include "text.h"

enum { FRACTION = 14 };

/* How much of each value red, green and blue take, with FRACTION bits. */
typedef struct {
  int luminance, black, red_v, green_u, green_v, blue_u;
} Matrix;

/* From the shares of red and blue in luminance (BT.601 table 1, BT.709 item 3.2) to the matrix back. */
static Matrix matrix_of(const YuyvFormat* format) {
  double red = format->bt709 ? 0.2126 : 0.299, blue = format->bt709 ? 0.0722 : 0.114, green = 1 - red - blue;
  double chroma = (format->full ? 1 : 255.0 / 224) * (1 << FRACTION);
  return (Matrix){
      .luminance = (int)lrint((format->full ? 1 : 255.0 / 219) * (1 << FRACTION)),
      .black = format->full ? 0 : 16,
      .red_v = (int)lrint(2 * (1 - red) * chroma),
      .green_u = (int)lrint(-2 * (1 - blue) * blue / green * chroma),
      .green_v = (int)lrint(-2 * (1 - red) * red / green * chroma),
      .blue_u = (int)lrint(2 * (1 - blue) * chroma),
  };
}

static unsigned char rounded(int value) {
  value = (value + (1 << (FRACTION - 1))) >> FRACTION;
  return value < 0 ? 0 : value > 255 ? 255 : (unsigned char)value;
}

int decode_yuyv(const unsigned char* data, size_t length, const YuyvFormat* format, const char* name, Picture* picture, char* why,
                size_t size) {
  size_t row = (size_t)(format->width + 1) / 2 * 4, rows = (size_t)format->height;
  *picture = (Picture){0, 0, NULL};
  if (format->stride < row || length < row || (length - row) / format->stride < rows - 1)
    return fail(why, size, "a frame of %s has %zu bytes, too few for %dx%d of YUYV", name, length, format->width, format->height);
  if (make_picture(picture, format->width, format->height, name, why, size)) return -1;
  const Matrix matrix = matrix_of(format);
  unsigned char* out = picture->pixels;
  for (int y = 0; y < format->height; ++y) {
    const unsigned char* pair = data + (size_t)y * format->stride;
    for (int x = 0; x < format->width; ++x, out += 3) {
      const unsigned char* p = pair + x / 2 * 4;
      int luminance = (p[x % 2 * 2] - matrix.black) * matrix.luminance, u = p[1] - 128, v = p[3] - 128;
      out[0] = rounded(luminance + matrix.red_v * v);
      out[1] = rounded(luminance + matrix.green_u * u + matrix.green_v * v);
      out[2] = rounded(luminance + matrix.blue_u * u);
    }
  }
  return 0;
}

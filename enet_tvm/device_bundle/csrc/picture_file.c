#include "picture_file.h"

#include <stdlib.h>

#include "files.h"
#include "jpeg.h"
#include "png.h"
#include "ppm.h"
#include "text.h"

enum { MOST_BYTES = 1 << 30 };

int read_picture(const char* path, Picture* picture, char* why, size_t size) {
  size_t length;
  int orientation = 0, result;
  unsigned char* data = (unsigned char*)read_text(path, MOST_BYTES, &length, why, size);
  *picture = (Picture){0, 0, NULL};
  if (data == NULL) return -1;
  if (is_jpeg(data, length))
    result = decode_jpeg(data, length, path, picture, &orientation, why, size);
  else if (is_png(data, length))
    result = decode_png(data, length, path, picture, &orientation, why, size);
  else if (is_ppm(data, length))
    result = decode_ppm(data, length, path, picture, why, size);
  else
    result = fail(why, size, "%s is neither a JPEG nor a PNG nor an 8-bit .ppm picture (P6); convert it to one of them", path);
  free(data);
  if (result == 0 && turn_upright(picture, orientation)) {
    free_picture(picture);
    result = fail(why, size, "there is no memory to turn %s upright", path);
  }
  return result;
}

#include "picture.h"

#include <stdlib.h>
#include <string.h>

#include "text.h"

int make_picture(Picture* picture, long long width, long long height, const char* name, char* why, size_t size) {
  *picture = (Picture){0, 0, NULL};
  if (width < 1 || height < 1 || width > MOST_PIXELS / height)
    return fail(why, size, "%s is %lldx%lld, and a picture has 1 to %d pixels; make it smaller", name, width, height,
                (int)MOST_PIXELS);
  unsigned char* pixels = malloc((size_t)width * (size_t)height * 3);
  if (pixels == NULL) return fail(why, size, "there is no memory for the %lldx%lld pixels of %s", width, height, name);
  *picture = (Picture){(int)width, (int)height, pixels};
  return 0;
}

void free_picture(Picture* picture) {
  free(picture->pixels);
  *picture = (Picture){0, 0, NULL};
}

int turn_upright(Picture* picture, int orientation) {
  if (orientation < 2 || orientation > 8) return 0;
  /* Of the eight, those from 5 on have rows for columns; where a row is read from its end, and rows from the last one: */
  int sideways = orientation >= 5;
  int from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  int from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  int width = sideways ? picture->height : picture->width, height = sideways ? picture->width : picture->height;
  unsigned char *turned = malloc((size_t)width * (size_t)height * 3), *out = turned;
  if (turned == NULL) return -1;
  for (int y = 0; y < height; ++y)
    for (int x = 0; x < width; ++x, out += 3) {
      int column = sideways ? y : x, row = sideways ? x : y;
      if (from_right) column = picture->width - 1 - column;
      if (from_bottom) row = picture->height - 1 - row;
      memcpy(out, picture->pixels + ((size_t)row * (size_t)picture->width + (size_t)column) * 3, 3);
    }
  free(picture->pixels);
  *picture = (Picture){width, height, turned};
  return 0;
}

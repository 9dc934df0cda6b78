#include "ppm.h"

#include <ctype.h>
#include <string.h>

#include "text.h"

int is_ppm(const unsigned char* data, size_t length) { return length >= 2 && data[0] == 'P' && data[1] == '6'; }

/* A number of the header, after white space and comments, and the one white space behind it; -1 if there is none. */
static long header_number(const unsigned char** at, const unsigned char* end) {
  const unsigned char* p = *at;
  while (p < end && (isspace(*p) || *p == '#'))
    if (*p++ == '#')
      while (p < end && *p++ != '\n') continue;
  long value = -1;
  for (; p < end && isdigit(*p) && value < 1000000; ++p) value = (value < 0 ? 0 : value) * 10 + (*p - '0');
  if (p == end || !isspace(*p)) return -1;
  *at = p + 1;
  return value;
}

int decode_ppm(const unsigned char* data, size_t length, const char* name, Picture* picture, char* why, size_t size) {
  const unsigned char *p = data + 2, *end = data + length;
  *picture = (Picture){0, 0, NULL};
  /* White space ends the magic number; a comment may follow it at once. */
  int known = is_ppm(data, length) && p < end && isspace(*p);
  long width = known ? header_number(&p, end) : -1, height = width > 0 ? header_number(&p, end) : -1,
       most = height > 0 ? header_number(&p, end) : -1;
  if (most != 255)
    return fail(why, size, "%s is not an 8-bit .ppm picture (P6); convert it to PNG or JPEG", name);
  if ((size_t)(end - p) / 3 / (size_t)width < (size_t)height) return fail(why, size, "%s ends too early; copy it again", name);
  if (make_picture(picture, width, height, name, why, size)) return -1;
  memcpy(picture->pixels, p, (size_t)width * (size_t)height * 3);
  return 0;
}

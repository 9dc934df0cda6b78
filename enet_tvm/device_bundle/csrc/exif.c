#define _GNU_SOURCE
#include "exif.h"

#include <stdint.h>
#include <string.h>

/* TIFF 6.0: the tag's number, and the types SHORT and LONG of its value. */
enum { ORIENTATION = 0x0112, SHORT = 3, LONG = 4, HEADER = 8, ENTRY = 12 };

static uint32_t number(const unsigned char* p, int bytes, int big) {
  uint32_t value = 0;
  for (int i = 0; i < bytes; ++i) value |= (uint32_t)p[i] << 8 * (big ? bytes - 1 - i : i);
  return value;
}

int exif_orientation(const unsigned char* data, size_t length) {
  if (length < HEADER || (memcmp(data, "II*\0", 4) && memcmp(data, "MM\0*", 4))) return 0;
  int big = data[0] == 'M';
  size_t at = number(data + 4, 4, big); /* of the first directory: how many entries, and those */
  if (at > length || length - at < 2) return 0;
  uint32_t count = number(data + at, 2, big);
  for (at += 2; count > 0 && length - at >= ENTRY; --count, at += ENTRY) {
    const unsigned char* entry = data + at;
    uint32_t type = number(entry + 2, 2, big);
    if (number(entry, 2, big) != ORIENTATION) continue;
    if ((type != SHORT && type != LONG) || number(entry + 4, 4, big) != 1) return 0;
    uint32_t value = number(entry + 8, type == SHORT ? 2 : 4, big);
    return value <= 8 ? (int)value : 0;
  }
  return 0;
}

int xmp_orientation(const unsigned char* data, size_t length) {
  static const char name[] = "tiff:Orientation";
  const unsigned char *end = data + length, *at = data;
  while ((at = memmem(at, (size_t)(end - at), name, sizeof name - 1)) != NULL) {
    at += sizeof name - 1;
    size_t blank = end - at >= 2 && memcmp(at, "=\"", 2) == 0 ? 2 : end - at >= 1 && *at == '>' ? 1 : 0;
    if (blank > 0 && (size_t)(end - at) > blank && at[blank] >= '0' && at[blank] <= '9')
      return at[blank] >= '1' && at[blank] <= '8' ? at[blank] - '0' : 0;
  }
  return 0;
}

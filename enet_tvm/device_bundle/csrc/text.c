#include "text.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

int fail(char* why, size_t size, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(why, size, format, arguments);
  va_end(arguments);
  return -1;
}

/* Table 3-7 of the Unicode Standard: neither overlong forms, nor surrogates, nor anything above U+10FFFF. */
size_t utf8_length(const char* text) {
  const unsigned char* p = (const unsigned char*)text;
  unsigned char least = 0x80, most = 0xBF;
  size_t length = *p < 0x80 ? 1 : *p < 0xC2 ? 0 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : *p < 0xF5 ? 4 : 0;
  if (*p == 0xE0) least = 0xA0;
  if (*p == 0xED) most = 0x9F;
  if (*p == 0xF0) least = 0x90;
  if (*p == 0xF4) most = 0x8F;
  for (size_t i = 1; i < length; ++i) {
    if (p[i] < least || p[i] > most) return 0;
    least = 0x80;
    most = 0xBF;
  }
  return length;
}

void make_printable(char* text) {
  for (unsigned char* p = (unsigned char*)text; *p;) {
    size_t length = utf8_length((const char*)p);
    /* U+0080 to U+009F are control characters, too. */
    int control = *p < 0x20 || *p == 0x7F || (length == 2 && *p == 0xC2 && p[1] < 0xA0);
    if (length == 0) length = 1, control = 1;
    for (size_t i = 0; control && i < length; ++i) p[i] = '?';
    p += length;
  }
}

#include "upload_name.h"

#include <string.h>

int is_upload_name(const char* name, size_t length) {
  size_t part = 0;
  int file = 0;
  if (memchr(name, '\0', length) != NULL || (length > 0 && name[0] == '/')) return 0;
  for (size_t begin = 0; begin <= length; begin += part + 1) {
    const char* slash = memchr(name + begin, '/', length - begin);
    part = slash != NULL ? (size_t)(slash - name) - begin : length - begin;
    if (part == 2 && memcmp(name + begin, "..", 2) == 0) return 0;
    file = part > 0 && !(part == 1 && name[begin] == '.'); /* what the last part is */
  }
  return file;
}

#include "exits.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "text.h"

void die(int code, const char* format, ...) {
  char line[4 * WHY];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  make_printable(line); /* what files say is not for the terminal to obey */
  fprintf(stderr, "enet-run: error: %s\n", line);
  exit(code);
}

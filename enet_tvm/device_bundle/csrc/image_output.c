#define _GNU_SOURCE
#include "image_output.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "files.h"
#include "text.h"

/* stb_image_write does not look whether memory grew: where it does not, writing is left at once. */
static jmp_buf no_memory;

static void* grown(void* memory, size_t bytes) {
  void* more = realloc(memory, bytes);
  if (more == NULL) longjmp(no_memory, 1);
  return more;
}

#define STBIW_MALLOC(bytes) malloc(bytes)
#define STBIW_REALLOC(memory, bytes) grown(memory, bytes)
#define STBIW_FREE(memory) free(memory)
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#pragma GCC diagnostic ignored "-Wunused-function" /* it declares what is defined with more of it alone */
#include <stb_image_write.h>

enum { MOST_OF_PNG = 1 << 29 }; /* bytes, whose sizes its writer counts in an int */

int ends_in(const char* path, const char* suffix) {
  size_t length = strlen(path), tail = strlen(suffix);
  return length > tail && strcasecmp(path + length - tail, suffix) == 0;
}

/* The bytes of a PNG picture; NULL if there is no memory. */
static unsigned char* png_of(int width, int height, int channels, const unsigned char* pixels, int* length) {
  if (setjmp(no_memory)) return NULL; /* what was begun is lost, and with it the program's purpose */
  return stbi_write_png_to_mem(pixels, width * channels, width, height, channels, length);
}

int write_image(const char* path, int width, int height, int channels, const unsigned char* pixels, char* why, size_t size) {
  Output output;
  size_t bytes = (size_t)width * (size_t)height * (size_t)channels;
  unsigned char* png = NULL;
  int length = 0, as_png = ends_in(path, ".png");
  if (as_png && bytes > MOST_OF_PNG)
    return fail(why, size, "%s would be too large for a PNG picture; give a name that ends in .%s", path,
                channels == 3 ? "ppm" : "pgm");
  if (as_png && (png = png_of(width, height, channels, pixels, &length)) == NULL)
    return fail(why, size, "there is no memory to write %s", path);
  if (begin_output(&output, path, why, size)) {
    free(png);
    return -1;
  }
  int good = as_png ? fwrite(png, 1, (size_t)length, output.file) == (size_t)length
                    : fprintf(output.file, "P%c\n%d %d\n255\n", channels == 3 ? '6' : '5', width, height) > 0 &&
                          fwrite(pixels, 1, bytes, output.file) == bytes;
  free(png);
  return finish_output(&output, good, why, size);
}

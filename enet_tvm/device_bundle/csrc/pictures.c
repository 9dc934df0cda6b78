#include "pictures.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(char* why, size_t size, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(why, size, format, arguments);
  va_end(arguments);
  return -1;
}

static size_t elements(const int64_t shape[4]) { return (size_t)(shape[0] * shape[1] * shape[2] * shape[3]); }

/* The header of a .npy file is a Python dictionary in text (numpy.lib.format, versions 1 and 2). */
int read_npy(const char* path, const int64_t shape[4], float* out, char* why, size_t size) {
  unsigned char start[12];
  char header[1024], wanted[128];
  FILE* file = fopen(path, "rb");
  if (file == NULL) return fail(why, size, "cannot read %s: %s", path, strerror(errno));
  size_t length = 0;
  int known = fread(start, 1, 10, file) == 10 && memcmp(start, "\x93NUMPY", 6) == 0 && (start[6] == 1 || start[6] == 2);
  if (known) {
    length = start[8] | (size_t)start[9] << 8;
    if (start[6] == 2)
      known = fread(start + 10, 1, 2, file) == 2 && (length |= (size_t)start[10] << 16 | (size_t)start[11] << 24, 1);
  }
  if (!known || length >= sizeof header || fread(header, 1, length, file) != length) {
    fclose(file);
    return fail(why, size, "%s is not a .npy file; write one with numpy.save", path);
  }
  header[length] = '\0';
  snprintf(wanted, sizeof wanted, "(%lld, %lld, %lld, %lld)", (long long)shape[0], (long long)shape[1], (long long)shape[2],
           (long long)shape[3]);
  if (!strstr(header, "'<f4'") || !strstr(header, "'fortran_order': False") || !strstr(header, wanted)) {
    fclose(file);
    return fail(why, size, "%s does not hold float32 values of the shape %s in C order, which the network takes", path, wanted);
  }
  size_t got = fread(out, sizeof *out, elements(shape), file);
  fclose(file);
  return got == elements(shape) ? 0 : fail(why, size, "%s ends too early; copy it again", path);
}

/* A number of a .ppm header, after white space and comments; -1 if there is none. */
static long header_number(FILE* file) {
  int c;
  while ((c = getc(file)) != EOF && (isspace(c) || c == '#'))
    if (c == '#')
      while ((c = getc(file)) != EOF && c != '\n') continue;
  long value = -1;
  for (; c != EOF && isdigit(c) && value < 1000000; c = getc(file)) value = (value < 0 ? 0 : value) * 10 + (c - '0');
  return value; /* the one white space behind the number is consumed */
}

int read_ppm(const char* path, const int64_t shape[4], const double mean[3], const double std[3], float* out, char* why,
             size_t size) {
  FILE* file = fopen(path, "rb");
  if (file == NULL) return fail(why, size, "cannot read %s: %s", path, strerror(errno));
  char magic[2];
  int known = fread(magic, 1, 2, file) == 2 && magic[0] == 'P' && magic[1] == '6';
  long width = known ? header_number(file) : -1, height = known ? header_number(file) : -1,
       most = known ? header_number(file) : -1;
  if (width < 1 || height < 1 || most != 255) {
    fclose(file);
    return fail(why, size, "%s is not an 8-bit .ppm picture (P6); convert it, for example with: convert picture.jpg %s", path,
                path);
  }
  if (shape[0] != 1) {
    fclose(file);
    return fail(why, size, "the network takes %lld pictures at once, and %s is one; give a .npy file of them", (long long)shape[0],
                path);
  }
  if (width != shape[3] || height != shape[2]) {
    fclose(file);
    return fail(why, size,
                "%s is %ldx%ld and the network takes %lldx%lld; resize it, for example with: convert %s -resize '%lldx%lld!' "
                "resized.ppm",
                path, width, height, (long long)shape[3], (long long)shape[2], path, (long long)shape[3], (long long)shape[2]);
  }
  size_t plane = (size_t)width * (size_t)height;
  unsigned char* row = malloc((size_t)width * 3);
  if (row == NULL) {
    fclose(file);
    return fail(why, size, "there is no memory for a row of %s", path);
  }
  /* As the segmenter does it in float32: pixel * (1 / (255 * std)) - mean / std. */
  float scale[3], shift[3];
  for (int c = 0; c < 3; ++c) {
    scale[c] = (float)(1 / (255 * std[c]));
    shift[c] = (float)(-mean[c] / std[c]);
  }
  int whole = 1;
  for (long y = 0; y < height && whole; ++y) {
    whole = fread(row, 3, (size_t)width, file) == (size_t)width;
    for (long x = 0; x < width && whole; ++x)
      for (int c = 0; c < 3; ++c) {
        volatile float product = (float)row[3 * x + c] * scale[c]; /* rounded by itself, not contracted with the addition */
        out[(size_t)c * plane + (size_t)(y * width + x)] = product + shift[c];
      }
  }
  free(row);
  fclose(file);
  return whole ? 0 : fail(why, size, "%s ends too early; copy it again", path);
}

/* A temporary file beside `path`, named in `temporary`. */
static FILE* begin(const char* path, char* temporary, size_t room, char* why, size_t size) {
  FILE* file = NULL;
  if ((size_t)snprintf(temporary, room, "%s.part", path) >= room)
    errno = ENAMETOOLONG;
  else
    file = fopen(temporary, "wb");
  if (file == NULL) fail(why, size, "cannot write %s: %s", path, strerror(errno));
  return file;
}

static int finish(FILE* file, int good, const char* path, const char* temporary, char* why, size_t size) {
  int error = good ? 0 : errno;
  if (fclose(file) != 0 && !error) error = errno;
  if (!error && rename(temporary, path) != 0) error = errno;
  if (!error) return 0;
  remove(temporary);
  return fail(why, size, "cannot write %s: %s", path, strerror(error));
}

int write_npy(const char* path, const int64_t shape[4], const float* values, char* why, size_t size) {
  char temporary[4096], header[128];
  FILE* file = begin(path, temporary, sizeof temporary, why, size);
  if (file == NULL) return -1;
  int length = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%lld, %lld, %lld, %lld), }",
                        (long long)shape[0], (long long)shape[1], (long long)shape[2], (long long)shape[3]);
  int padded = (10 + length + 1 + 63) / 64 * 64 - 10; /* data begin at a multiple of 64 */
  unsigned char start[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(padded & 255), (unsigned char)(padded >> 8)};
  int good = fwrite(start, 1, 10, file) == 10 && fprintf(file, "%s%*s\n", header, padded - length - 1, "") == padded &&
             fwrite(values, sizeof *values, elements(shape), file) == elements(shape);
  return finish(file, good, path, temporary, why, size);
}

void most_likely(const int64_t shape[4], const float* logits, unsigned char* labels) {
  size_t plane = (size_t)(shape[2] * shape[3]);
  for (size_t i = 0; i < plane; ++i) {
    int best = 0;
    for (int c = 1; c < (int)shape[1]; ++c)
      if (logits[(size_t)c * plane + i] > logits[(size_t)best * plane + i]) best = c;
    labels[i] = (unsigned char)best;
  }
}

int write_labels(const char* path, int64_t width, int64_t height, const unsigned char* labels, char* why, size_t size) {
  char temporary[4096];
  size_t count = (size_t)(width * height);
  FILE* file = begin(path, temporary, sizeof temporary, why, size);
  if (file == NULL) return -1;
  int good =
      fprintf(file, "P5\n%lld %lld\n255\n", (long long)width, (long long)height) > 0 && fwrite(labels, 1, count, file) == count;
  return finish(file, good, path, temporary, why, size);
}

#include "npy.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files.h"
#include "text.h"

static const char* blanks(const char* p) { return p + strspn(p, " \t\r\n"); }

/* The text between quotes that `p` begins with; where it ends, or NULL. */
static const char* quoted(const char* p, char* out, size_t size) {
  char quote = *p;
  if (quote != '\'' && quote != '"') return NULL;
  const char* end = strchr(p + 1, quote);
  if (end == NULL || (size_t)(end - p) > size) return NULL;
  memcpy(out, p + 1, (size_t)(end - p - 1));
  out[end - p - 1] = '\0';
  return end + 1;
}

/* A tuple of integers as Python writes it; where it ends, or NULL. */
static const char* extents_in(const char* p, int64_t* extents, int most, int* rank) {
  if (*p != '(') return NULL;
  for (p = blanks(p + 1), *rank = 0; *p != ')'; ++*rank) {
    char* end;
    errno = 0;
    if (*rank == most || !isdigit((unsigned char)*p)) return NULL;
    extents[*rank] = strtoll(p, &end, 10);
    p = blanks(end);
    if (errno || (*p != ',' && *p != ')')) return NULL;
    if (*p == ',') p = blanks(p + 1);
  }
  return p + 1;
}

typedef struct {
  char dtype[16];
  int fortran, rank;
  int64_t extents[4];
} Header;

/* A header is a dictionary with these three keys, each once, as Python writes it (numpy.lib.format). */
static int read_header(const char* p, Header* header) {
  char key[16];
  int seen = 0, which;
  if (*(p = blanks(p)) != '{') return -1;
  for (p = blanks(p + 1); *p != '}';) {
    if ((p = quoted(p, key, sizeof key)) == NULL || *(p = blanks(p)) != ':') return -1;
    p = blanks(p + 1);
    if (strcmp(key, "descr") == 0) {
      which = 1;
      p = quoted(p, header->dtype, sizeof header->dtype);
    } else if (strcmp(key, "fortran_order") == 0) {
      which = 2;
      header->fortran = strncmp(p, "True", 4) == 0;
      p = header->fortran ? p + 4 : strncmp(p, "False", 5) == 0 ? p + 5 : NULL;
    } else if (strcmp(key, "shape") == 0) {
      which = 4;
      p = extents_in(p, header->extents, 4, &header->rank);
    } else {
      return -1;
    }
    if (p == NULL || seen & which) return -1;
    seen |= which;
    p = blanks(p);
    if (*p != ',' && *p != '}') return -1;
    if (*p == ',') p = blanks(p + 1);
  }
  return seen == 7 && *blanks(p + 1) == '\0' ? 0 : -1;
}

/* The header of a .npy file is a Python dictionary in text (numpy.lib.format, versions 1 and 2). */
int read_npy(const char* path, const int64_t shape[4], float* out, char* why, size_t size) {
  unsigned char start[12];
  char text[1024], wanted[128];
  Header header = {.rank = -1};
  FILE* file = open_file(path, why, size);
  if (file == NULL) return -1;
  size_t length = 0;
  int known = fread(start, 1, 10, file) == 10 && memcmp(start, "\x93NUMPY", 6) == 0 && (start[6] == 1 || start[6] == 2) &&
              start[7] == 0;
  if (known) {
    length = start[8] | (size_t)start[9] << 8;
    if (start[6] == 2)
      known = fread(start + 10, 1, 2, file) == 2 && (length |= (size_t)start[10] << 16 | (size_t)start[11] << 24, 1);
  }
  known = known && length < sizeof text && fread(text, 1, length, file) == length;
  text[known ? length : 0] = '\0';
  if (!known || strlen(text) != length || read_header(text, &header)) {
    fclose(file);
    return fail(why, size, "%s is not a .npy file; write one with numpy.save", path);
  }
  snprintf(wanted, sizeof wanted, "(%lld, %lld, %lld, %lld)", (long long)shape[0], (long long)shape[1], (long long)shape[2],
           (long long)shape[3]);
  if (strcmp(header.dtype, "<f4") || header.fortran || header.rank != 4 ||
      memcmp(header.extents, shape, sizeof header.extents)) {
    fclose(file);
    return fail(why, size, "%s does not hold float32 values of the shape %s in C order, which the network takes", path, wanted);
  }
  size_t bytes = 0;
  int whole = bytes_of(shape, 4, sizeof *out, &bytes) == 0 && fread(out, 1, bytes, file) == bytes;
  fclose(file);
  if (!whole) return fail(why, size, "%s ends too early; copy it again", path);
  for (size_t i = 0; i < bytes / sizeof *out; ++i)
    if (!isfinite(out[i]))
      return fail(why, size, "%s holds NaN or infinity, which the network would label like any pixel; fill such pixels in", path);
  return 0;
}

int write_npy(const char* path, const int64_t shape[4], const float* values, char* why, size_t size) {
  char header[128];
  size_t bytes;
  Output output;
  if (bytes_of(shape, 4, sizeof *values, &bytes)) return fail(why, size, "cannot write %s: it is too large", path);
  if (begin_output(&output, path, why, size)) return -1;
  int length = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%lld, %lld, %lld, %lld), }",
                        (long long)shape[0], (long long)shape[1], (long long)shape[2], (long long)shape[3]);
  int padded = (10 + length + 1 + 63) / 64 * 64 - 10; /* data begin at a multiple of 64 */
  unsigned char start[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)(padded & 255), (unsigned char)(padded >> 8)};
  int good = fwrite(start, 1, 10, output.file) == 10 &&
             fprintf(output.file, "%s%*s\n", header, padded - length - 1, "") == padded &&
             fwrite(values, 1, bytes, output.file) == bytes;
  return finish_output(&output, good, why, size);
}

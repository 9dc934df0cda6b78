#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "text.h"

FILE* open_file(const char* path, char* why, size_t size) {
  struct stat entry;
  FILE* file = NULL;
  /* Asked before, because opening a device may do something, and after, because it may be another file by then. */
  int found = stat(path, &entry) == 0;
  if (found && S_ISREG(entry.st_mode)) {
    int handle = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    found = handle >= 0 && fstat(handle, &entry) == 0;
    if (found && S_ISREG(entry.st_mode)) file = fdopen(handle, "rb");
    if (file == NULL && handle >= 0) close(handle);
  }
  if (!found)
    fail(why, size, "cannot read %s: %s", path, strerror(errno));
  else if (!S_ISREG(entry.st_mode))
    fail(why, size, "cannot read %s: it is a folder, a device or a pipe, and not a file", path);
  else if (file == NULL)
    fail(why, size, "there is no memory to read %s", path);
  return file;
}

char* read_text(const char* path, size_t most, size_t* length, char* why, size_t size) {
  FILE* file = open_file(path, why, size);
  if (file == NULL) return NULL;
  /* What the kernel makes up, such as /proc/cpuinfo, does not say how long it is. */
  size_t room = 1 << 16;
  char* text = malloc(room);
  for (*length = 0; text != NULL;) {
    *length += fread(text + *length, 1, room - *length - 1, file);
    if (*length + 1 < room || *length > most) break;
    char* more = realloc(text, room *= 2);
    if (more == NULL) free(text);
    text = more;
  }
  int failed = ferror(file);
  fclose(file);
  if (text == NULL) return fail(why, size, "there is no memory to read %s", path), NULL;
  text[*length] = '\0';
  if (!failed && *length <= most) return text;
  free(text);
  if (failed)
    fail(why, size, "cannot read %s: %s", path, strerror(EIO));
  else
    fail(why, size, "%s has more than %zu bytes", path, most);
  return NULL;
}

int bytes_of(const int64_t* extents, int rank, size_t element, size_t* bytes) {
  size_t product = element;
  for (int i = 0; i < rank; ++i)
    if (extents[i] < 1 || __builtin_mul_overflow(product, extents[i], &product)) return -1;
  *bytes = product;
  return product <= PTRDIFF_MAX ? 0 : -1;
}

/* The number of an open file that a path such as /dev/stdout stands for; -1 for any other path. Opened by its name, such a file
   would begin anew. */
static int open_already(const char* path) {
  static const char* const folders[] = {"/dev/fd/", "/proc/self/fd/"};
  if (strcmp(path, "/dev/stdout") == 0) return 1;
  if (strcmp(path, "/dev/stderr") == 0) return 2;
  for (int i = 0; i < 2; ++i) {
    const char* digits = path + strlen(folders[i]);
    if (strncmp(path, folders[i], strlen(folders[i])) == 0 && *digits != '\0' && strlen(digits) < 9 &&
        strspn(digits, "0123456789") == strlen(digits))
      return atoi(digits);
  }
  return -1;
}

int is_stdout(const char* path) { return path != NULL && open_already(path) == STDOUT_FILENO; }

/* Begin to write into an open file, behind what was printed already. */
static FILE* reopened(int number) {
  fflush(NULL);
  int copy = dup(number);
  FILE* file = copy < 0 ? NULL : fdopen(copy, "wb");
  if (file == NULL && copy >= 0) close(copy);
  return file;
}

int begin_output(Output* output, const char* path, char* why, size_t size) {
  struct stat entry;
  int number = open_already(path);
  char* real = number < 0 ? realpath(path, NULL) : NULL;
  size_t length = (size_t)snprintf(output->path, sizeof output->path, "%s", real != NULL ? real : path);
  free(real);
  output->file = NULL;
  output->temporary[0] = '\0';
  if (length >= sizeof output->path) {
    errno = ENAMETOOLONG;
  } else if (number >= 0) {
    output->file = reopened(number);
  } else {
    /* A link to nothing is followed by opening it: there is nothing yet that could be lost. */
    if (lstat(output->path, &entry) || S_ISREG(entry.st_mode))
      snprintf(output->temporary, sizeof output->temporary, "%s.part", output->path);
    output->file = fopen(output->temporary[0] ? output->temporary : output->path, "wb");
  }
  return output->file != NULL ? 0 : fail(why, size, "cannot write %s: %s", path, strerror(errno));
}

int finish_output(Output* output, int good, char* why, size_t size) {
  int error = good ? 0 : errno ? errno : EIO;
  if (fclose(output->file) != 0 && !error) error = errno;
  if (output->temporary[0] && !error && rename(output->temporary, output->path) != 0) error = errno;
  if (!error) return 0;
  if (output->temporary[0]) remove(output->temporary);
  return fail(why, size, "cannot write %s: %s", output->path, strerror(error));
}

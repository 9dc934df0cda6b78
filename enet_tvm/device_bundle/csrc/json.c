#include "json.h"

#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 64 };

static const char* space(const char* p) { return p + strspn(p, " \t\r\n"); }

static const char* after_string(const char* p) {
  if (*p++ != '"') return NULL;
  for (; *p && *p != '"'; ++p)
    if (*p == '\\' && *++p == '\0') return NULL;
  return *p ? p + 1 : NULL;
}

/* Where a value ends; NULL if it does not. */
static const char* after(const char* p, int depth) {
  p = space(p);
  if (depth > DEEPEST) return NULL;
  if (*p == '"') return after_string(p);
  if (*p != '{' && *p != '[') {
    size_t length = strspn(p, "+-.0123456789abcdefghijklmnopqrstuvwxyzE");
    return length ? p + length : NULL;
  }
  char close = *p == '{' ? '}' : ']';
  p = space(p + 1);
  if (*p == close) return p + 1;
  for (;;) {
    if (close == '}') {
      if ((p = after_string(space(p))) == NULL || *(p = space(p)) != ':') return NULL;
      ++p;
    }
    if ((p = after(p, depth + 1)) == NULL) return NULL;
    p = space(p);
    if (*p == close) return p + 1;
    if (*p++ != ',') return NULL;
  }
}

const char* json_find(const char* text, const char* path) {
  const char* p = space(text);
  if (after(p, 0) == NULL) return NULL;
  while (*path) {
    size_t length = strcspn(path, ".");
    if (*p != '{') return NULL;
    p = space(p + 1);
    for (;;) {
      if (*p != '"') return NULL;
      const char* name = p + 1;
      const char* value = space(after_string(p)) + 1;
      p = space(value);
      if (strncmp(name, path, length) == 0 && name[length] == '"') break;
      p = space(after(p, 0));
      if (*p != ',') return NULL;
      p = space(p + 1);
    }
    path += length + (path[length] == '.');
  }
  return p;
}

int json_string(const char* value, char* out, size_t size) {
  if (value == NULL || *value != '"') return -1;
  size_t length = strcspn(value + 1, "\"\\");
  if (value[1 + length] != '"' || length >= size) return -1;
  memcpy(out, value + 1, length);
  out[length] = '\0';
  return 0;
}

const char* json_next(const char* array, const char* element) {
  if (array == NULL || *array != '[') return NULL;
  const char* p = array + 1;
  if (element != NULL) {
    p = space(after(element, 0));
    if (*p++ != ',') return NULL;
  }
  p = space(p);
  return *p == ']' ? NULL : p;
}

int json_numbers(const char* value, double* out, int most) {
  int count = 0;
  if (value == NULL || *value != '[') return -1;
  for (const char* p = json_next(value, NULL); p != NULL; p = json_next(value, p)) {
    char* end;
    double number = strtod(p, &end);
    if (end == p) return -1;
    if (count < most) out[count] = number;
    ++count;
  }
  return count;
}

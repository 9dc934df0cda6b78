#include "json.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

enum { DEEPEST = 64, MOST_NAMES = 64 };

static const char* space(const char* p) { return p + strspn(p, " \t\r\n"); }

static size_t digits(const char* p) { return strspn(p, "0123456789"); }

/* The four hexadecimal digits of an escape; -1 if they are none. */
static long hexadecimal(const char* p) {
  char four[5] = "";
  if (strspn(p, "0123456789abcdefABCDEF") < 4) return -1;
  memcpy(four, p, 4);
  return strtol(four, NULL, 16);
}

/* Read what follows a back slash as UTF-8; where it ends, or NULL. */
static const char* escape(const char* p, char out[4], size_t* length) {
  static const char names[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
  const char* found = *p ? strchr(names, *p) : NULL;
  *length = 1;
  if (found != NULL) {
    *out = meanings[found - names];
    return p + 1;
  }
  long code = *p == 'u' ? hexadecimal(p + 1) : -1;
  p += 5;
  if (code < 0 || (code >= 0xDC00 && code <= 0xDFFF)) return NULL;
  if (code >= 0xD800 && code <= 0xDBFF) {
    long low = p[0] == '\\' && p[1] == 'u' ? hexadecimal(p + 2) : -1;
    if (low < 0xDC00 || low > 0xDFFF) return NULL;
    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    p += 6;
  }
  if (code == 0) code = 0xFFFD; /* no text in C holds a NUL */
  *length = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  static const unsigned char first[5] = {0, 0, 0xC0, 0xE0, 0xF0};
  for (size_t i = *length; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
  out[0] = (char)(first[*length] | code);
  return p;
}

/* Read a string, as far as it fits; where it ends, or NULL. `length` becomes that of all of it. */
static const char* read_string(const char* p, char* out, size_t size, size_t* length) {
  size_t used = 0;
  if (*p++ != '"') return NULL;
  while (*p != '"') {
    char bytes[4];
    size_t count;
    if (*p == '\\') {
      if ((p = escape(p + 1, bytes, &count)) == NULL) return NULL;
    } else {
      if ((unsigned char)*p < 0x20 || (count = utf8_length(p)) == 0) return NULL; /* the end of the text, too */
      memcpy(bytes, p, count);
      p += count;
    }
    for (size_t i = 0; i < count; ++i, ++used)
      if (used + 1 < size) out[used] = bytes[i];
  }
  if (size > 0) out[used < size ? used : size - 1] = '\0';
  *length = used;
  return p + 1;
}

/* Where a number or a word ends; NULL if there is none. `integer` becomes whether it has neither fraction nor exponent. */
static const char* read_plain(const char* p, int* integer) {
  static const char* const words[] = {"true", "false", "null"};
  const char* begin = p;
  *integer = 0;
  for (size_t i = 0; i < sizeof words / sizeof *words; ++i)
    if (strncmp(p, words[i], strlen(words[i])) == 0) return p + strlen(words[i]);
  p += *p == '-';
  size_t whole = digits(p);
  if (whole == 0 || (whole > 1 && *p == '0')) return NULL;
  p += whole;
  *integer = 1;
  if (*p == '.') {
    size_t fraction = digits(p + 1);
    if (fraction == 0) return NULL;
    p += 1 + fraction;
    *integer = 0;
  }
  if (*p == 'e' || *p == 'E') {
    p += p[1] == '+' || p[1] == '-' ? 2 : 1;
    size_t exponent = digits(p);
    if (exponent == 0) return NULL;
    p += exponent;
    *integer = 0;
  }
  errno = 0;
  if (*integer) strtoull(begin + (*begin == '-'), NULL, 10);
  return errno || !isfinite(strtod(begin, NULL)) ? NULL : p; /* it must fit 64 bits and a sign, or a double */
}

/* Whether an object has a name that is among those before it. */
static int repeated(const char* const* names, int count) {
  char name[JSON_KEY_ROOM], other[JSON_KEY_ROOM];
  size_t length;
  read_string(names[count], name, sizeof name, &length);
  for (int i = 0; i < count; ++i) {
    read_string(names[i], other, sizeof other, &length);
    if (strcmp(name, other) == 0) return 1;
  }
  return 0;
}

/* Where a value ends; NULL if it is none. */
static const char* after(const char* p, int depth) {
  const char* names[MOST_NAMES];
  int count = 0, integer;
  size_t length;
  if (*p == '"') return read_string(p, NULL, 0, &length);
  if (*p != '{' && *p != '[') return read_plain(p, &integer);
  if (depth == DEEPEST) return NULL;
  char close = *p == '{' ? '}' : ']';
  p = space(p + 1);
  if (*p == close) return p + 1;
  for (;;) {
    if (close == '}') {
      if (count == MOST_NAMES) return NULL;
      names[count] = p;
      if ((p = read_string(p, NULL, 0, &length)) == NULL || length >= JSON_KEY_ROOM) return NULL;
      if (repeated(names, count++) || *(p = space(p)) != ':') return NULL;
      p = space(p + 1);
    }
    if ((p = after(p, depth + 1)) == NULL) return NULL;
    p = space(p);
    if (*p == close) return p + 1;
    if (*p != ',') return NULL;
    p = space(p + 1);
  }
}

int json_check(const char* text, size_t length) {
  if (strlen(text) != length) return -1;
  const char* end = after(space(text), 0);
  return end != NULL && *space(end) == '\0' ? 0 : -1;
}

/* What follows a value in its array or object, after the comma; NULL if it is the last. */
static const char* following(const char* value) {
  const char* p = after(value, 0);
  if (p == NULL || *(p = space(p)) != ',') return NULL;
  return space(p + 1);
}

const char* json_member(const char* object, const char* value, char name[JSON_KEY_ROOM]) {
  size_t length;
  if (object == NULL || *(object = space(object)) != '{') return NULL;
  const char* p = value == NULL ? space(object + 1) : following(value);
  if (p == NULL || (p = read_string(p, name, JSON_KEY_ROOM, &length)) == NULL || *(p = space(p)) != ':') return NULL;
  return space(p + 1);
}

const char* json_next(const char* array, const char* element) {
  if (array == NULL || *(array = space(array)) != '[') return NULL;
  if (element != NULL) return following(element);
  const char* p = space(array + 1);
  return *p == ']' ? NULL : p;
}

const char* json_find(const char* object, const char* path) {
  char name[JSON_KEY_ROOM];
  const char* value = object;
  while (*path) {
    size_t length = strcspn(path, ".");
    object = value;
    value = NULL;
    while ((value = json_member(object, value, name)) != NULL)
      if (strncmp(name, path, length) == 0 && name[length] == '\0') break;
    if (value == NULL) return NULL;
    path += length + (path[length] == '.');
  }
  return value;
}

int64_t json_count(const char* array) {
  int64_t count = 0;
  if (array == NULL || *space(array) != '[') return -1;
  for (const char* p = json_next(array, NULL); p != NULL; p = json_next(array, p)) ++count;
  return count;
}

int json_string(const char* value, char* out, size_t size) {
  size_t length;
  return value != NULL && read_string(value, out, size, &length) != NULL && length < size ? 0 : -1;
}

int json_is(const char* value, const char* text) {
  char own[JSON_KEY_ROOM];
  return json_string(value, own, sizeof own) == 0 && strcmp(own, text) == 0;
}

int json_is_null(const char* value) { return value != NULL && strncmp(value, "null", 4) == 0; }

int json_is_integer(const char* value) {
  int integer;
  return value != NULL && read_plain(value, &integer) != NULL && integer;
}

int json_integer(const char* value, int64_t* out) {
  if (!json_is_integer(value)) return -1;
  errno = 0;
  long long number = strtoll(value, NULL, 10);
  *out = number;
  return errno ? -1 : 0;
}

int json_number(const char* value, double* out) {
  if (value == NULL || *value == '\0' || strchr("-0123456789", *value) == NULL) return -1;
  *out = strtod(value, NULL);
  return isfinite(*out) ? 0 : -1;
}

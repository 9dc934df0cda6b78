/* Reading values out of a JSON text (RFC 8259): just what a manifest and a tracker's answers need. */
#ifndef ENET_TVM_JSON_H
#define ENET_TVM_JSON_H

#include <stddef.h>
#include <stdint.h>

enum { JSON_KEY_ROOM = 64 };

/* 0 if a text of `length` bytes, with a zero byte behind them, is one JSON value and nothing else. Stricter than the standard
   where readers differ, or a short text could take long: an object has no name twice, few names, and short ones; nesting is
   bounded; numbers fit 64 bits or a double. The functions below take values of texts that were found good. */
int json_check(const char* text, size_t length);

/* Where the value of `path` ("hashes.library") begins; NULL if there is none. */
const char* json_find(const char* object, const char* path);

/* The next value of an object, or the first when `value` is NULL, and its name; NULL after the last, or if it is no object. */
const char* json_member(const char* object, const char* value, char name[JSON_KEY_ROOM]);

/* The next element of an array, or the first when `element` is NULL; NULL after the last, or if the value is no array. */
const char* json_next(const char* array, const char* element);

/* How many elements an array has; -1 if the value is none. */
int64_t json_count(const char* array);

/* Copy a string as UTF-8, a NUL in it as U+FFFD; -1 if the value is none, or was cut because it does not fit. */
int json_string(const char* value, char* out, size_t size);

/* Whether a value is the string `text`, the word null, or an integer: digits, without a fraction and an exponent. */
int json_is(const char* value, const char* text);
int json_is_null(const char* value);
int json_is_integer(const char* value);

/* Copy an integer; -1 if the value is none, or has no room in 64 bits. */
int json_integer(const char* value, int64_t* out);

/* Copy a number; -1 if the value is none. */
int json_number(const char* value, double* out);

#endif

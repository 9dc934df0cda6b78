/* Reading values out of a JSON text by their path; just what a manifest needs. */
#ifndef ENET_TVM_JSON_H
#define ENET_TVM_JSON_H

#include <stddef.h>

/* Where the value of `path` ("hashes.library") begins; NULL if there is none, or the text is not JSON. */
const char* json_find(const char* text, const char* path);

/* Copy a string without escapes; -1 if the value is none, has escapes or does not fit. */
int json_string(const char* value, char* out, size_t size);

/* Copy up to `most` numbers of an array; how many there are, or -1 if the value is no array of numbers. */
int json_numbers(const char* value, double* out, int most);

/* The next element of an array, or the first when `element` is NULL; NULL after the last, or if the value is no array. */
const char* json_next(const char* array, const char* element);

#endif

/* Being called by TVM: what functions that a program registers read of their arguments, and how they answer. */
#ifndef ENET_TVM_TVM_ARGUMENTS_H
#define ENET_TVM_TVM_ARGUMENTS_H

#include <stddef.h>
#include <stdint.h>
#include <tvm/ffi/c_api.h>

/* Raise a RuntimeError, with `what` in the place of the format's %s; always -1. */
int refuse(const char* format, const char* what);

/* The text or the bytes of an argument, where they lie; -1 if it is neither. */
int content(const TVMFFIAny* any, const char** data, size_t* length);

/* The first argument, a text, with its end marked; -1, and an error is raised, if it is none or too long. */
int text_of(const TVMFFIAny* arguments, int32_t count, char* text, size_t room);

/* Answer with a text. */
int text_result(const char* text, TVMFFIAny* result);

/* A text that grows; all zeros at first. */
typedef struct {
  char* text;
  size_t used, room;
  int failed; /* whether there was no memory */
} Growing;

void grow(Growing* growing, const char* format, ...);

/* Answer with what has grown, and free it. */
int growing_result(Growing* growing, TVMFFIAny* result);

#endif

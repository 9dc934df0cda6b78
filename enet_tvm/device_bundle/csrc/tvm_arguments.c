#include "tvm_arguments.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int refuse(const char* format, const char* what) {
  char text[1024];
  snprintf(text, sizeof text, format, what);
  TVMFFIErrorSetRaisedFromCStr("RuntimeError", text);
  return -1;
}

int content(const TVMFFIAny* any, const char** data, size_t* length) {
  const TVMFFIByteArray* cell = NULL;
  switch (any->type_index) {
    case kTVMFFIRawStr:
      *data = any->v_c_str;
      *length = strlen(any->v_c_str);
      return 0;
    case kTVMFFISmallStr:
    case kTVMFFISmallBytes:
      *data = any->v_bytes;
      *length = any->small_str_len;
      return 0;
    case kTVMFFIStr:
    case kTVMFFIBytes: cell = (const TVMFFIByteArray*)((const char*)any->v_obj + sizeof(TVMFFIObject)); break;
    case kTVMFFIByteArrayPtr: cell = any->v_ptr; break;
    default: return -1;
  }
  *data = cell->data;
  *length = cell->size;
  return 0;
}

int text_of(const TVMFFIAny* arguments, int32_t count, char* text, size_t room) {
  const char* data;
  size_t length;
  if (count < 1 || content(arguments, &data, &length) || length >= room) return refuse("%s expected", "a short text");
  memcpy(text, data, length);
  text[length] = '\0';
  return 0;
}

int text_result(const char* text, TVMFFIAny* result) {
  TVMFFIByteArray bytes = {text, strlen(text)};
  return TVMFFIStringFromByteArray(&bytes, result);
}

void grow(Growing* growing, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  if (growing->failed || length < 0) return;
  if (growing->used + (size_t)length >= growing->room) {
    size_t room = 2 * (growing->used + (size_t)length) + 256;
    char* larger = realloc(growing->text, room);
    if (larger == NULL) {
      growing->failed = 1;
      return;
    }
    growing->text = larger;
    growing->room = room;
  }
  va_start(arguments, format);
  growing->used += (size_t)vsnprintf(growing->text + growing->used, growing->room - growing->used, format, arguments);
  va_end(arguments);
}

int growing_result(Growing* growing, TVMFFIAny* result) {
  int status = growing->failed ? refuse("the device has no %s", "memory for the answer")
                               : text_result(growing->text == NULL ? "" : growing->text, result);
  free(growing->text);
  *growing = (Growing){0};
  return status;
}

/* Calling TVM through the C interface of libtvm_ffi alone: every call is checked, and an error becomes text. */
#ifndef ENET_TVM_TVM_CALL_H
#define ENET_TVM_TVM_CALL_H

#include <stddef.h>
#include <stdint.h>
#include <tvm/ffi/c_api.h>

TVMFFIAny tvm_int(int64_t value);
TVMFFIAny tvm_bool(int value);
/* The text must outlive the call. */
TVMFFIAny tvm_string(const char* text);
TVMFFIAny tvm_pointer(void* pointer);
TVMFFIAny tvm_device(int type, int id);
TVMFFIAny tvm_dtype(int code, int bits);
TVMFFIAny tvm_none(void);

/* Call a function; 0 and an owned result, or -1 and the reason (a line, without TVM's backtrace) in `why`. */
int tvm_call(TVMFFIObjectHandle function, int count, TVMFFIAny* arguments, TVMFFIAny* result, char* why, size_t size);

/* The function TVM registered under a name, owned; NULL if there is none. */
TVMFFIObjectHandle tvm_global(const char* name);

/* Give back a result that `tvm_call` returned. */
void tvm_release(TVMFFIAny* value);

/* The raised error as one line in `why`. */
void tvm_reason(char* why, size_t size);

#endif

#include "tvm_call.h"

#include <stdio.h>
#include <string.h>

static TVMFFIAny empty(int32_t kind) {
  TVMFFIAny any;
  memset(&any, 0, sizeof any); /* unused bytes count when TVM compares values */
  any.type_index = kind;
  return any;
}

TVMFFIAny tvm_none(void) { return empty(kTVMFFINone); }

TVMFFIAny tvm_int(int64_t value) {
  TVMFFIAny any = empty(kTVMFFIInt);
  any.v_int64 = value;
  return any;
}

TVMFFIAny tvm_bool(int value) {
  TVMFFIAny any = empty(kTVMFFIBool);
  any.v_int64 = value != 0;
  return any;
}

TVMFFIAny tvm_string(const char* text) {
  TVMFFIAny any = empty(kTVMFFIRawStr);
  any.v_c_str = text;
  return any;
}

TVMFFIAny tvm_pointer(void* pointer) {
  TVMFFIAny any = empty(kTVMFFIOpaquePtr);
  any.v_ptr = pointer;
  return any;
}

TVMFFIAny tvm_device(int type, int id) {
  TVMFFIAny any = empty(kTVMFFIDevice);
  any.v_device.device_type = (DLDeviceType)type;
  any.v_device.device_id = id;
  return any;
}

TVMFFIAny tvm_dtype(int code, int bits) {
  TVMFFIAny any = empty(kTVMFFIDataType);
  any.v_dtype.code = (uint8_t)code;
  any.v_dtype.bits = (uint8_t)bits;
  any.v_dtype.lanes = 1;
  return any;
}

void tvm_reason(char* why, size_t size) {
  TVMFFIObjectHandle raised = NULL;
  snprintf(why, size, "no reason was given");
  TVMFFIErrorMoveFromRaised(&raised);
  if (raised == NULL) return;
  const TVMFFIErrorCell* cell = (const TVMFFIErrorCell*)((const char*)raised + sizeof(TVMFFIObject));
  snprintf(why, size, "%.*s: %.*s", (int)cell->kind.size, cell->kind.data, (int)cell->message.size, cell->message.data);
  /* The first line says it; what follows are TVM's own source lines. */
  size_t length = strcspn(why, "\n");
  while (length > 0 && strchr(" .:", why[length - 1])) --length;
  why[length] = '\0';
  TVMFFIObjectDecRef(raised);
}

int tvm_call(TVMFFIObjectHandle function, int count, TVMFFIAny* arguments, TVMFFIAny* result, char* why, size_t size) {
  *result = tvm_none();
  if (TVMFFIFunctionCall(function, arguments, count, result) == 0) return 0;
  tvm_reason(why, size);
  return -1;
}

TVMFFIObjectHandle tvm_global(const char* name) {
  TVMFFIByteArray text = {name, strlen(name)};
  TVMFFIObjectHandle function = NULL;
  return TVMFFIFunctionGetGlobal(&text, &function) == 0 ? function : NULL;
}

void tvm_release(TVMFFIAny* value) {
  if (value->type_index >= kTVMFFIStaticObjectBegin && value->v_obj != NULL) TVMFFIObjectDecRef(value->v_obj);
  *value = tvm_none();
}

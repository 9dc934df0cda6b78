/* Watching the kernels of a forward pass on the board: enet_tvm.runtime.instrument, for a server without Python. */
#ifndef ENET_TVM_INSTRUMENT_H
#define ENET_TVM_INSTRUMENT_H

#include <stdint.h>
#include <tvm/ffi/c_api.h>

/* Functions for TVM. The first two take a virtual machine, the name of a function of it, its input and the kind of device
   ("cpu" or "cuda"); the machine is instrumented afterwards. Their answers are JSON. */

/* The name and the seconds of every kernel of one call, in launch order. */
int time_kernels(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result);

/* The names alone; what the kernels wrote is kept. */
int keep_outputs(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result);

/* What the kernel of a number wrote, once. */
int kernel_output(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result);

#endif

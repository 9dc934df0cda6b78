/* What a board says of itself: the JSON that enet_tvm.rpc.session_process.device_facts makes on boards with Python. */
#ifndef ENET_TVM_FACTS_H
#define ENET_TVM_FACTS_H

#include <stddef.h>

/* Write the facts as a JSON object; what the board does not say is left out. */
void device_facts(char* out, size_t size);

#endif

/* What a board says of itself: the JSON that enet_tvm.rpc.session_process.device_facts makes on boards with Python. */
#ifndef ENET_TVM_FACTS_H
#define ENET_TVM_FACTS_H

#include <stddef.h>

/* Write the facts as a JSON object; what the board does not say is left out. */
void device_facts(char* out, size_t size);

/* Write the features that all processors of a file such as /proc/cpuinfo have, with blanks between them: a board with big and
   little cores may list different ones, and code may run on any of them. */
void shared_features(const char* cpuinfo, char* out, size_t size);

#endif

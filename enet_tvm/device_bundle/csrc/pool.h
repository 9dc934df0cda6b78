/* TVM's pool of threads, made of a size and for processors that are said. */
#ifndef ENET_TVM_POOL_H
#define ENET_TVM_POOL_H

#include <stddef.h>
#include <stdint.h>

/* Make the calling thread's pool of so many threads, at least one and at most one for each processor that it may run on; each of
   them may run on all of those. -1 and a reason in `why` if that fails. */
int make_pool(int64_t threads, char* why, size_t size);

#endif

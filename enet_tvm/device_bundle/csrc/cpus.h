/* How many processors a process may keep busy: enet_tvm.machine for programs without Python. */
#ifndef ENET_TVM_CPUS_H
#define ENET_TVM_CPUS_H

#include <stddef.h>

enum { MOST_CORES = 1024 };

typedef struct {
  int allowed;    /* processors that the process may run on (taskset), the most threads that a pool has use for */
  int threads;    /* to use where nobody says it: the CPU quota and TVM_NUM_THREADS may make them fewer */
  int processors; /* of the machine */
  char why[96];   /* what makes the threads fewer than the processors; empty when nothing does */
} ThreadCount;

/* Let the calling thread, and those that it starts, run on those of some processors, numbers below 1024, that it may use: unless
   none of them is here, or `threads` (0 where nobody says it) are more. How many it is bound to then, 0 for none; -1 if the kernel
   refuses. What Python's CoreChoice says goes to `text`: "cores 4-7", or another sentence with a colon before the reason. */
int bind_cores(const int* wanted, int count, long threads, char* text, size_t size);

/* Fill in `count`, with /proc and the control groups looked for under `root` ("" for this machine); `bound` is what the thread was
   bound to, in words, or NULL. -1 and a sentence in `error` when TVM_NUM_THREADS is no number of threads. */
int default_threads(const char* root, const char* bound, ThreadCount* count, char* error, size_t size);

/* "2 of 64 processors: WHY", or "64 processors". */
void describe_threads(const ThreadCount* count, char* text, size_t size);

/* How many processors' time the process may use, by the quotas of its control groups; 0 when nothing limits it. */
double cpu_quota(const char* root);

#endif

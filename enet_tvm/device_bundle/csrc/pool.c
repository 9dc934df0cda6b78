#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "text.h"
#include "tvm_arguments.h"
#include "tvm_call.h"

enum { SHARE_ALL_CORES = -3 /* ThreadGroup::AffinityMode::kSpecifyThreadShareAllCore */ };

int make_pool(int64_t threads, char* why, size_t size) {
  char names[CPU_SETSIZE][8];
  TVMFFIAny texts[CPU_SETSIZE];
  cpu_set_t usable;
  int cpus = 0;
  if (sched_getaffinity(0, sizeof usable, &usable)) return fail(why, size, "the processors are unknown: %s", strerror(errno));
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &usable)) continue;
    snprintf(names[cpus], sizeof names[cpus], "%d", cpu);
    texts[cpus] = tvm_string(names[cpus]);
    ++cpus;
  }
  int wanted = threads < 1 ? 1 : threads > cpus ? cpus : (int)threads;
  TVMFFIObjectHandle array = tvm_global("ffi.Array"), configure = tvm_global("runtime.config_threadpool");
  if (array == NULL || configure == NULL) return fail(why, size, "TVM's runtime has no thread pool to configure");
  /* The list's length is the size of the new pool; the second call lets its threads run on every processor. */
  for (int turn = 0; turn < 2; ++turn) {
    TVMFFIAny asked[3] = {tvm_int(SHARE_ALL_CORES), tvm_int(wanted)}, none;
    if (tvm_call(array, turn == 0 ? wanted : cpus, texts, &asked[2], why, size)) return -1;
    int failed = tvm_call(configure, 3, asked, &none, why, size);
    tvm_release(&asked[2]);
    if (failed) return -1;
    tvm_release(&none);
  }
  return 0;
}

/* Blocks of CUDA threads on one processor: a fiber for each thread, in an order drawn anew after every barrier.
 *
 * The kernel is compiled with -fsanitize=thread, whose calls before every access come here instead of to that sanitiser's own
 * library: an access must lie in an array of the launch or in the block's shared memory, must be aligned, must not read shared
 * memory that the block has not written, and must not meet another thread's without a barrier between them.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { MOST_THREADS = 1024, WARP = 32, STACK = 64 << 10, MOST_ARRAYS = 64, EXCHANGED = 64, DYNAMIC = 100 << 10 };

typedef struct { unsigned x, y, z; } Dim;
struct { Dim thread, block, threads, blocks; } cuda_indices;
static char dynamic_memory[DYNAMIC] __attribute__((aligned(256)));
void* cuda_dynamic_shared = dynamic_memory;

/* What happened last to a few bytes. Intervals are counted through all blocks of all launches; a barrier begins the next. */
typedef struct {
    uint32_t written, read;           /* intervals; 0 where never */
    uint32_t written_step, read_step; /* how often the thread's warp had synchronised */
    uint16_t writer, reader;
    bool many_read, warps_read;       /* more threads than `reader` did: of its warp, of others */
} Cell;

typedef struct {
    char* start;
    size_t bytes;
    int granule; /* bytes of a cell */
    bool constant, shared;
    Cell* cells;
    const char* name;
} Region;

typedef struct { uint64_t instruction, address; uint32_t thread; uint16_t size; uint8_t writes, shared; } Access;

static enum State { READY, AT_BARRIER, AT_WARP, DONE } states[MOST_THREADS];
static ucontext_t contexts[MOST_THREADS], scheduler;
static void* waits_at[MOST_THREADS];
static uint32_t warp_steps[MOST_THREADS / WARP];
static char exchanged[MOST_THREADS / WARP][2][WARP * EXCHANGED];
static char* stacks;
static int threads, current;
static Region regions[MOST_ARRAYS + 2];
static int region_count, last_region;
static uint32_t interval, first_of_block, first_of_launch;
static uint64_t random_state;
static char message[1024];
static bool faulted;
static void (*entry)(void**);
static void** entry_arguments;
static Access* trace;
static size_t trace_count, trace_room;
static bool tracing;

static uint32_t draw(uint32_t below) {
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 33) % below;
}

static Dim index_of(unsigned linear, Dim extents) {
    return (Dim){linear % extents.x, linear / extents.x % extents.y, linear / extents.x / extents.y};
}

static void yield_as(enum State state, void* where) {
    states[current] = state;
    waits_at[current] = where;
    swapcontext(&contexts[current], &scheduler);
}

static void note(const char* format, va_list arguments) {
    Dim b = cuda_indices.block;
    int length = snprintf(message, sizeof message, "block (%u, %u, %u): ", b.x, b.y, b.z);
    vsnprintf(message + length, sizeof message - length, format, arguments);
    faulted = true;
}

/* End the launch from outside its threads. */
static bool stop(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    note(format, arguments);
    va_end(arguments);
    return false;
}

/* End the launch from the current thread, which does not go on. */
static void fault(const char* format, ...) {
    char text[sizeof message];
    Dim t = cuda_indices.thread;
    snprintf(text, sizeof text, "thread (%u, %u, %u) %s", t.x, t.y, t.z, format);
    va_list arguments;
    va_start(arguments, format);
    note(text, arguments);
    va_end(arguments);
    yield_as(DONE, NULL);
}

void cuda_fault(const char* text) { fault("%s", text); }

static const char* describe(int thread) {
    static char text[64];
    Dim t = index_of(thread, cuda_indices.threads);
    snprintf(text, sizeof text, "thread (%u, %u, %u)", t.x, t.y, t.z);
    return text;
}

/* Whether the current thread's access is after that of `thread`, in an interval and at a step of its warp. */
static bool ordered(bool shared, uint32_t when, uint32_t step, int thread, bool others_of_warp) {
    if (when < first_of_launch) return true;
    if (when < first_of_block) return shared; /* another block's: it has memory of its own */
    if (when < interval) return true;
    if (thread == current && !others_of_warp) return true;
    return thread / WARP == current / WARP && step < warp_steps[current / WARP];
}

static void check(Region* region, Cell* cell, bool writes) {
    size_t element = cell - region->cells;
    uint32_t step = warp_steps[current / WARP];
    const char* what = region->shared ? "without a barrier between" : "in the same launch";
    if (cell->written && !ordered(region->shared, cell->written, cell->written_step, cell->writer, false))
        fault("%s %s[%zu], which %s%s wrote %s", writes ? "writes" : "reads", region->name, element, describe(cell->writer),
              cell->written < first_of_block ? " of another block" : "", what);
    if (writes) {
        if (cell->read && !(ordered(region->shared, cell->read, cell->read_step, cell->reader, cell->many_read) && !(cell->warps_read && cell->read >= interval)))
            fault("writes %s[%zu], which %s%s read %s", region->name, element,
                  describe(cell->reader), cell->read < first_of_block ? " of another block" : cell->many_read ? ", or another," : "", what);
        cell->written = interval, cell->written_step = step, cell->writer = (uint16_t)current;
        return;
    }
    if (region->shared && cell->written < first_of_block) fault("reads %s[%zu], which nobody has written", region->name, element);
    bool first = cell->read < interval || (!cell->warps_read && cell->reader / WARP == current / WARP && cell->read_step < step);
    if (first) {
        cell->many_read = cell->warps_read = false;
    } else if (cell->reader != current) {
        cell->many_read = true;
        cell->warps_read |= cell->reader / WARP != current / WARP;
    }
    cell->read = interval, cell->read_step = step, cell->reader = (uint16_t)current;
}

static bool within(const Region* region, const char* address, size_t size) {
    return address >= region->start && address + size <= region->start + region->bytes;
}

static void touch(const void* pointer, size_t size, bool writes, void* instruction) {
    const char* address = pointer;
    if (address >= stacks && address < stacks + (size_t)MOST_THREADS * STACK) return; /* a thread's own */
    if (address >= (char*)&cuda_indices && address < (char*)(&cuda_indices + 1)) return;
    if (address == (char*)&cuda_dynamic_shared) return;
    if (!within(&regions[last_region], address, size)) {
        int i = 0;
        while (i < region_count && !within(&regions[i], address, size)) ++i;
        if (i == region_count) {
            Region* nearest = NULL;
            for (i = 0; i < region_count; ++i)
                if (address + 4096 >= regions[i].start && address < regions[i].start + regions[i].bytes + 4096) nearest = &regions[i];
            if (nearest)
                fault("%s %zu bytes at byte %td of %s, which has %zu", writes ? "writes" : "reads", size,
                      address - nearest->start, nearest->name, nearest->bytes);
            fault("%s %zu bytes at %p, which belongs to no array", writes ? "writes" : "reads", size, pointer);
        }
        last_region = i;
    }
    Region* region = &regions[last_region];
    if ((uintptr_t)address % size) fault("%s %zu bytes at byte %td of %s: not aligned", writes ? "writes" : "reads", size, address - region->start, region->name);
    if (tracing) {
        if (trace_count == trace_room) trace = realloc(trace, (trace_room = trace_room ? 2 * trace_room : 4096) * sizeof *trace);
        trace[trace_count++] = (Access){(uintptr_t)instruction, (uintptr_t)address, current, (uint16_t)size, writes, region->shared};
    }
    if (region->constant) {
        if (writes) fault("writes to %s, which is constant", region->name);
        return;
    }
    size_t first = (address - region->start) / region->granule, last = (address - region->start + size - 1) / region->granule;
    for (size_t i = first; i <= last; ++i) check(region, &region->cells[i], writes);
}

void cuda_read(const void* address, size_t size) { touch(address, size, false, __builtin_return_address(0)); }

#define SANITISED(size)                                                                                                  \
    void __tsan_read##size(void* p) { touch(p, size, false, __builtin_return_address(0)); }                              \
    void __tsan_write##size(void* p) { touch(p, size, true, __builtin_return_address(0)); }                              \
    void __tsan_unaligned_read##size(void* p) { touch(p, size, false, __builtin_return_address(0)); }                    \
    void __tsan_unaligned_write##size(void* p) { touch(p, size, true, __builtin_return_address(0)); }
SANITISED(1)
SANITISED(2)
SANITISED(4)
SANITISED(8)
SANITISED(16)
void __tsan_init(void) {}
void __tsan_func_entry(void* p) { (void)p; }
void __tsan_func_exit(void) {}

static void touch_words(const void* p, size_t size, bool writes, void* instruction) {
    size_t word = (uintptr_t)p % 4 || size % 4 ? 1 : 4;
    for (size_t i = 0; i < size; i += word) touch((const char*)p + i, word, writes, instruction);
}
void* __tsan_memcpy(void* to, const void* from, size_t size) {
    touch_words(from, size, false, __builtin_return_address(0));
    touch_words(to, size, true, __builtin_return_address(0));
    return memcpy(to, from, size);
}
void* __tsan_memset(void* to, int value, size_t size) {
    touch_words(to, size, true, __builtin_return_address(0));
    return memset(to, value, size);
}

void cuda_block_barrier(void) { yield_as(AT_BARRIER, __builtin_return_address(0)); }

const void* cuda_warp_exchange(const void* mine, size_t size) {
    int warp = current / WARP;
    char* all = exchanged[warp][warp_steps[warp] % 2]; /* that of the step before is still being read */
    if (size > EXCHANGED) fault("exchanges %zu bytes", size);
    memcpy(all + current % WARP * size, mine, size);
    yield_as(AT_WARP, __builtin_return_address(0));
    return all;
}

char* cuda_shared_base(void) {
    for (int i = 0; i < region_count; ++i)
        if (regions[i].shared) return regions[i].start;
    return dynamic_memory;
}

static void begin_thread(void) {
    entry(entry_arguments);
    yield_as(DONE, NULL);
}

/* Let those go on that wait for each other and are all there; return whether there were any. */
static bool release(void) {
    bool released = false;
    int waiting = 0, done = 0;
    for (int warp = 0; warp * WARP < threads; ++warp) {
        int end = (warp + 1) * WARP < threads ? (warp + 1) * WARP : threads, there = 0;
        for (int t = warp * WARP; t < end; ++t) {
            waiting += states[t] == AT_BARRIER, done += states[t] == DONE, there += states[t] == AT_WARP;
        }
        if (!there) continue;
        if (there < end - warp * WARP) return stop("%d of warp %d's threads come to an instruction that all must come to", there, warp);
        ++warp_steps[warp];
        for (int t = warp * WARP; t < end; ++t) states[t] = READY;
        released = true;
    }
    if (released || done == threads) return released;
    if (waiting < threads) return stop("%d of %d threads never come to a barrier that the others wait at", threads - waiting, threads);
    for (int t = 1; t < threads; ++t)
        if (waits_at[t] != waits_at[0]) return stop("thread %d waits at another barrier than thread 0", t);
    ++interval;
    for (int t = 0; t < threads; ++t) states[t] = READY;
    return true;
}

static void run_block(unsigned block) {
    static int order[MOST_THREADS];
    cuda_indices.block = index_of(block, cuda_indices.blocks);
    first_of_block = ++interval;
    for (int i = 0; i < region_count; ++i)
        if (regions[i].shared) memset(regions[i].start, 0xff, regions[i].bytes); /* a NaN, in halves and floats */
    for (int t = 0; t < threads; ++t) {
        order[t] = t;
        states[t] = READY;
        getcontext(&contexts[t]);
        contexts[t].uc_stack.ss_sp = stacks + (size_t)t * STACK;
        contexts[t].uc_stack.ss_size = STACK;
        contexts[t].uc_link = &scheduler;
        makecontext(&contexts[t], begin_thread, 0);
    }
    do {
        for (int t = threads - 1; t > 0; --t) {
            int other = (int)draw(t + 1), kept = order[t];
            order[t] = order[other], order[other] = kept;
        }
        for (int i = 0; i < threads && !faulted; ++i) {
            if (states[order[i]] != READY) continue;
            current = order[i];
            cuda_indices.thread = index_of(current, cuda_indices.threads);
            swapcontext(&scheduler, &contexts[current]);
        }
    } while (!faulted && release() && !faulted);
}

/* Make an array known to the next launch; `constant` where the kernel takes a pointer to const. */
void fibers_array(char* start, size_t bytes, int granule, bool constant, const char* name) {
    regions[region_count++] = (Region){start, bytes, granule, constant, false, NULL, name};
}

/* Run a launch, or one block of it whose accesses are listed where `traced` is no -1; return what went wrong, NULL for nothing. */
const char* fibers_launch(void (*kernel)(void**), void** arguments, const unsigned* grid, const unsigned* block, char* shared,
                          size_t shared_bytes, size_t dynamic_bytes, int granule, uint64_t seed, long traced) {
    cuda_indices.blocks = (Dim){grid[0], grid[1], grid[2]};
    cuda_indices.threads = (Dim){block[0], block[1], block[2]};
    threads = (int)(block[0] * block[1] * block[2]);
    entry = kernel, entry_arguments = arguments;
    if (!stacks) stacks = mmap(NULL, (size_t)MOST_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shared_bytes) regions[region_count++] = (Region){shared, shared_bytes, granule, false, true, NULL, "shared"};
    if (dynamic_bytes) regions[region_count++] = (Region){dynamic_memory, dynamic_bytes, granule, false, true, NULL, "dynamic shared"};
    for (int i = 0; i < region_count; ++i)
        if (!regions[i].constant) regions[i].cells = calloc(regions[i].bytes / regions[i].granule + 1, sizeof(Cell));
    faulted = false, last_region = 0, trace_count = 0;
    first_of_launch = interval + 1;
    memset(warp_steps, 0, sizeof warp_steps);
    random_state = seed * 0x9e3779b97f4a7c15u + 0x853c49e6748fea9bu;
    unsigned count = grid[0] * grid[1] * grid[2], *order = malloc(count * sizeof *order);
    for (unsigned i = 0; i < count; ++i) {
        unsigned other = draw(i + 1);
        order[i] = order[other], order[other] = i;
    }
    tracing = traced >= 0;
    if (tracing) run_block((unsigned)traced);
    for (unsigned i = 0; i < count && !faulted && !tracing; ++i) run_block(order[i]);
    tracing = false;
    free(order);
    for (int i = 0; i < region_count; ++i) free(regions[i].cells);
    region_count = 0;
    return faulted ? message : NULL;
}

size_t fibers_traced(const Access** accesses) {
    *accesses = trace;
    return trace_count;
}

/* A plugin of QEMU's user mode that writes every block of code that was executed: how often, where, and its instructions.

A line is the number of executions in decimal, then the address and the instruction words in hexadecimal; the environment's
QEMU_BLOCKS names the file. A program that closes the file descriptor MARK, which it does not have, divides what it executes: each
time, what is new is written to that name with .1 at its end, .2 the second time, and so on, and the rest when it ends. Counts are
exact with one thread. The interface is version 1 of qemu-plugin.h as QEMU 7.2 has it: Debian has no package with that header. */

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info_t;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb*));
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb*, enum qemu_plugin_op, void* counter, uint64_t add);
extern void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id,
                                                 void (*)(qemu_plugin_id_t, unsigned vcpu, int64_t number, uint64_t, uint64_t,
                                                          uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
extern void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, void (*)(qemu_plugin_id_t, void*), void* data);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb*);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb*);
extern struct qemu_plugin_insn* qemu_plugin_tb_get_insn(const struct qemu_plugin_tb*, size_t);
extern const void* qemu_plugin_insn_data(const struct qemu_plugin_insn*);

enum { CLOSE = 57, MARK = 0x656e6574 }; /* of Linux on aarch64; of tools.py */

typedef struct Block {
  struct Block* next;
  uint64_t executed; /* since the last mark */
  uint64_t address;
  size_t length;
  uint32_t words[];
} Block;

static Block* blocks;

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb* code) {
  (void)id;
  size_t length = qemu_plugin_tb_n_insns(code);
  Block* block = malloc(sizeof *block + length * sizeof block->words[0]);
  if (block == NULL) abort();
  block->executed = 0;
  block->address = qemu_plugin_tb_vaddr(code);
  block->length = length;
  for (size_t i = 0; i < length; ++i)
    memcpy(&block->words[i], qemu_plugin_insn_data(qemu_plugin_tb_get_insn(code, i)), sizeof block->words[i]);
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_inline(code, QEMU_PLUGIN_INLINE_ADD_U64, &block->executed, 1);
}

static void write_blocks(const char* path) {
  FILE* file = fopen(path, "w");
  if (file == NULL) return; /* who reads it finds no file */
  for (const Block* block = blocks; block != NULL; block = block->next) {
    if (block->executed == 0) continue;
    fprintf(file, "%" PRIu64 " %" PRIx64, block->executed, block->address);
    for (size_t i = 0; i < block->length; ++i) fprintf(file, " %08" PRIx32, block->words[i]);
    fputc('\n', file);
  }
  fclose(file);
}

static void called(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                   uint64_t f, uint64_t g, uint64_t h) {
  static unsigned marks;
  char path[4096];
  (void)id, (void)vcpu, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
  if (number != CLOSE || (uint32_t)a != MARK || getenv("QEMU_BLOCKS") == NULL) return;
  int length = snprintf(path, sizeof path, "%s.%u", getenv("QEMU_BLOCKS"), ++marks);
  if (length > 0 && (size_t)length < sizeof path) write_blocks(path);
  for (Block* block = blocks; block != NULL; block = block->next) block->executed = 0;
}

static void ended(qemu_plugin_id_t id, void* data) {
  (void)id, (void)data;
  if (getenv("QEMU_BLOCKS") != NULL) write_blocks(getenv("QEMU_BLOCKS"));
}

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t* info, int count,
                                                               char** arguments) {
  (void)info, (void)count, (void)arguments;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  qemu_plugin_register_atexit_cb(id, ended, NULL);
  return 0;
}

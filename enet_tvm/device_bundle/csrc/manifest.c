#define _GNU_SOURCE
#include "manifest.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#include "files.h"
#include "json.h"
#include "sha256.h"
#include "text.h"

/* Versions this was built for: -DAPACHE_TVM="..." -DAPACHE_TVM_FFI="..." */
#ifndef APACHE_TVM
#error "APACHE_TVM and APACHE_TVM_FFI name the versions of TVM's runtime"
#endif

enum { MOST_BYTES = 16 << 20, MOST_CPUINFO = 16 << 20, MOST_CLASSES = 256, LARGEST_EXTENT = 1 << 20 };
static const int64_t MOST_ELEMENTS = INT64_C(1) << 36;

/* ---- the schema: the models of enet_tvm.artifact, field by field ---- */

typedef struct {
  char name[192]; /* of the field that is wrong, such as input.shape */
} Wrong;

typedef int (*Check)(const char* value, Wrong* wrong);

typedef struct {
  const char* name;
  Check check;
  enum { NEEDED = 1, NULLABLE = 2 } kind; /* 0 for what may be left out, but is not null */
} Field;

static int blame(Wrong* wrong, const char* name) {
  Wrong inner = *wrong;
  snprintf(wrong->name, sizeof wrong->name, "%s%s%.100s", name, inner.name[0] ? "." : "", inner.name);
  return -1;
}

static int object(const char* value, const Field* fields, Wrong* wrong) {
  char name[JSON_KEY_ROOM];
  uint64_t seen = 0;
  if (*value != '{') return -1;
  for (const char* member = NULL; (member = json_member(value, member, name)) != NULL;) {
    int i = 0;
    while (fields[i].name != NULL && strcmp(fields[i].name, name)) ++i;
    if (fields[i].name == NULL) return blame(wrong, name); /* from a later release */
    if (fields[i].kind & NULLABLE && json_is_null(member))
      ;
    else if (fields[i].check(member, wrong))
      return blame(wrong, name);
    seen |= UINT64_C(1) << i;
  }
  for (int i = 0; fields[i].name != NULL; ++i)
    if (fields[i].kind & NEEDED && !(seen >> i & 1)) return blame(wrong, fields[i].name);
  return 0;
}

static int list(const char* value, Check check, Wrong* wrong) {
  if (*value != '[') return -1;
  for (const char* element = json_next(value, NULL); element != NULL; element = json_next(value, element))
    if (check(element, wrong)) return -1;
  return 0;
}

static int text(const char* value, Wrong* wrong) { return (void)wrong, *value == '"' ? 0 : -1; }

static int texts(const char* value, Wrong* wrong) { return list(value, text, wrong); }

static int integer(const char* value, Wrong* wrong) { return (void)wrong, json_is_integer(value) ? 0 : -1; }

static int integers(const char* value, Wrong* wrong) { return list(value, integer, wrong); }

static int between(const char* value, double least, double most) {
  double number;
  return json_number(value, &number) == 0 && number >= least && number <= most ? 0 : -1;
}

static int real(const char* value, Wrong* wrong) { return (void)wrong, between(value, -DBL_MAX, DBL_MAX); }

/* Within these, float32 gives numbers. */
static int shift(const char* value, Wrong* wrong) { return (void)wrong, between(value, -1e6, 1e6); }

static int scale(const char* value, Wrong* wrong) { return (void)wrong, between(value, 1e-6, 1e6); }

static int within(const char* value, int64_t least, int64_t most) {
  int64_t number;
  return json_integer(value, &number) == 0 && number >= least && number <= most ? 0 : -1;
}

static int schema(const char* value, Wrong* wrong) { return (void)wrong, within(value, 1, 1); }

static int extent(const char* value, Wrong* wrong) { return (void)wrong, within(value, 1, LARGEST_EXTENT); }

static int channel(const char* value, Wrong* wrong) { return (void)wrong, within(value, 0, 255); }

static int core(const char* value, Wrong* wrong) { return (void)wrong, within(value, 0, MOST_CORES - 1); }

static int cores(const char* value, Wrong* wrong) { return json_count(value) <= MOST_CORES ? list(value, core, wrong) : -1; }

static int boolean(const char* value, Wrong* wrong) {
  return (void)wrong, strncmp(value, "true", 4) == 0 || strncmp(value, "false", 5) == 0 ? 0 : -1;
}

static int colour(const char* value, Wrong* wrong) { return json_count(value) == 3 ? list(value, channel, wrong) : -1; }

static int colours(const char* value, Wrong* wrong) { return list(value, colour, wrong); }

static int class_names(const char* value, Wrong* wrong) {
  int64_t count = json_count(value);
  return count >= 1 && count <= MOST_CLASSES ? list(value, text, wrong) : -1;
}

static int elements_fit(const char* value) {
  int64_t elements = 1, number;
  for (const char* element = json_next(value, NULL); element != NULL; element = json_next(value, element))
    if (json_integer(element, &number) || __builtin_mul_overflow(elements, number, &elements)) return -1;
  return elements <= MOST_ELEMENTS ? 0 : -1;
}

static int shape4(const char* value, Wrong* wrong) {
  return json_count(value) == 4 && list(value, extent, wrong) == 0 ? elements_fit(value) : -1;
}

static int shape3_or_4(const char* value, Wrong* wrong) {
  return json_count(value) != 3 ? shape4(value, wrong) : list(value, extent, wrong) ? -1 : elements_fit(value);
}

static int mean(const char* value, Wrong* wrong) { return json_count(value) == 3 ? list(value, shift, wrong) : -1; }

static int std(const char* value, Wrong* wrong) { return json_count(value) == 3 ? list(value, scale, wrong) : -1; }

/* Whether a value is one of some texts, separated by blanks. */
static int one_of(const char* value, const char* words) {
  for (char word[32]; *words; words += strspn(words, " ")) {
    size_t length = strcspn(words, " ");
    snprintf(word, sizeof word, "%.*s", (int)length, words);
    if (json_is(value, word)) return 0;
    words += length;
  }
  return -1;
}

static int float32(const char* value, Wrong* wrong) { return (void)wrong, one_of(value, "float32"); }

static int nchw(const char* value, Wrong* wrong) { return (void)wrong, one_of(value, "NCHW"); }

static int output_dtype(const char* value, Wrong* wrong) { return (void)wrong, one_of(value, "float32 uint8"); }

static int output_layout(const char* value, Wrong* wrong) { return (void)wrong, one_of(value, "NCHW NHW"); }

static int machine(const char* value, Wrong* wrong) { return (void)wrong, one_of(value, "x86_64 aarch64"); }

static int device(const char* value, Wrong* wrong) { return (void)wrong, one_of(value, "cpu cuda"); }

static int storage(const char* value, Wrong* wrong) { return (void)wrong, one_of(value, "float32 float16 bfloat16 uint8 int8"); }

static int arithmetic(const char* value, Wrong* wrong) { return (void)wrong, one_of(value, "float32 float16 bfloat16 int8"); }

static int hash(const char* value, Wrong* wrong) {
  char digits[65];
  return (void)wrong, json_string(value, digits, sizeof digits) == 0 && strspn(digits, "0123456789abcdef") == 64 ? 0 : -1;
}

/* A name without a path: the library lies in the artifact's directory. */
static int file_name(const char* value, Wrong* wrong) {
  static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
  char name[128];
  (void)wrong;
  if (json_string(value, name, sizeof name) || name[0] == '\0' || name[0] == '.' || name[0] == '-') return -1;
  return name[strspn(name, letters)] == '\0' ? 0 : -1;
}

static int input_info(const char* value, Wrong* wrong) {
  static const Field fields[] = {{"shape", shape4, NEEDED},
                                 {"mean", mean, NEEDED},
                                 {"std", std, NEEDED},
                                 {"dtype", float32, 0},
                                 {"layout", nchw, 0},
                                 {NULL, NULL, 0}};
  return object(value, fields, wrong);
}

static int output_info(const char* value, Wrong* wrong) {
  static const Field fields[] = {
      {"shape", shape3_or_4, NEEDED}, {"dtype", output_dtype, 0}, {"layout", output_layout, 0}, {NULL, NULL, 0}};
  return object(value, fields, wrong);
}

static int target_info(const char* value, Wrong* wrong) {
  static const Field fields[] = {{"name", text, NEEDED},   {"triple", text, NEEDED},
                                 {"mcpu", text, NEEDED},   {"cpu_features", texts, 0},
                                 {"device", device, 0},    {"architecture", machine, NEEDED},
                                 {"core_list", cores, 0},  {NULL, NULL, 0}};
  return object(value, fields, wrong);
}

static int versions(const char* value, Wrong* wrong) {
  static const Field fields[] = {
      {"enet_tvm", text, NEEDED}, {"apache_tvm", text, NEEDED}, {"apache_tvm_ffi", text, NEEDED}, {NULL, NULL, 0}};
  return object(value, fields, wrong);
}

static int hashes(const char* value, Wrong* wrong) {
  static const Field fields[] = {{"weights", hash, NEEDED}, {"library", hash, NULLABLE}, {NULL, NULL, 0}};
  return object(value, fields, wrong);
}

static int kernel_output(const char* value, Wrong* wrong) {
  static const Field fields[] = {{"shape", integers, NEEDED}, {"block", integer, 0}, {"pad", integer, 0},
                                 {"dtype", storage, 0},       {"scale", real, 0},    {"zero", integer, 0},
                                 {NULL, NULL, 0}};
  return object(value, fields, wrong);
}

static int kernel(const char* value, Wrong* wrong) {
  static const Field fields[] = {{"name", text, NEEDED},
                                 {"ops", texts, 0},
                                 {"layers", texts, 0},
                                 {"output_layout", kernel_output, NULLABLE},
                                 {"flops", integer, 0},
                                 {"bytes", integer, 0},
                                 {NULL, NULL, 0}};
  return object(value, fields, wrong);
}

static int kernels(const char* value, Wrong* wrong) { return list(value, kernel, wrong); }

static int device_kernel(const char* value, Wrong* wrong) {
  static const Field fields[] = {{"name", text, NEEDED},           {"registers", integer, NEEDED},
                                 {"spill_bytes", integer, NEEDED}, {"stack_bytes", integer, NEEDED},
                                 {"shared_bytes", integer, NEEDED}, {NULL, NULL, 0}};
  return object(value, fields, wrong);
}

static int device_kernels(const char* value, Wrong* wrong) {
  return json_count(value) >= 1 ? list(value, device_kernel, wrong) : -1;
}

static int device_report(const char* value, Wrong* wrong) {
  static const Field fields[] = {
      {"arch", text, NEEDED}, {"ptx", text, NEEDED}, {"kernels", device_kernels, NEEDED}, {NULL, NULL, 0}};
  return object(value, fields, wrong);
}

static int library_report(const char* value, Wrong* wrong) {
  static const Field fields[] = {{"machine", text, NEEDED},
                                 {"needed", texts, 0},
                                 {"glibc", text, NULLABLE},
                                 {"size", integer, NEEDED},
                                 {"exported_kernels", integer, NEEDED},
                                 {"device", device_report, NULLABLE},
                                 {NULL, NULL, 0}};
  return object(value, fields, wrong);
}

static int tuning_info(const char* value, Wrong* wrong) {
  static const Field fields[] = {{"log", text, NEEDED},        {"kernels", integer, NEEDED}, {"of", integer, NEEDED},
                                 {"threads", integer, NEEDED}, {"date", text, NEEDED},
                                 {"modelled", boolean, 0},     {"simulated", boolean, 0},   {NULL, NULL, 0}};
  return object(value, fields, wrong);
}

static const Field manifest_fields[] = {{"schema_version", schema, NEEDED},
                                        {"network", text, NEEDED},
                                        {"classes", class_names, NEEDED},
                                        {"palette", colours, NEEDED},
                                        {"input", input_info, NEEDED},
                                        {"output", output_info, NEEDED},
                                        {"target", target_info, NEEDED},
                                        {"versions", versions, NEEDED},
                                        {"hashes", hashes, NEEDED},
                                        {"kernels", kernels, NEEDED},
                                        {"kernel_count", integer, NEEDED},
                                        {"command", text, NEEDED},
                                        {"weights", text, 0},
                                        {"library", file_name, 0},
                                        {"library_report", library_report, NULLABLE},
                                        {"tuning", tuning_info, NULLABLE},
                                        {"dtype", arithmetic, 0},
                                        {NULL, NULL, 0}};

/* ---- what of it the runner needs ---- */

static int copy_shape(const char* value, int64_t out[4]) {
  int rank = 0;
  for (int i = 0; i < 4; ++i) out[i] = 1;
  for (const char* element = json_next(value, NULL); element != NULL && rank < 4; element = json_next(value, element))
    json_integer(element, &out[rank++]);
  return rank;
}

static void copy_three(const char* value, double out[3]) {
  int i = 0;
  for (const char* element = json_next(value, NULL); element != NULL && i < 3; element = json_next(value, element))
    json_number(element, &out[i++]);
}

static void copy_cores(const char* value, Manifest* manifest) {
  int64_t core;
  if (value == NULL) return;
  for (const char* element = json_next(value, NULL); element != NULL; element = json_next(value, element))
    if (json_integer(element, &core) == 0) manifest->cores[manifest->core_count++] = (int)core;
}

static void copy_palette(const char* value, unsigned char out[256][3]) {
  int i = 0;
  for (const char* colour = json_next(value, NULL); colour != NULL && i < MOST_CLASSES; colour = json_next(value, colour), ++i) {
    double channels[3] = {0};
    copy_three(colour, channels);
    for (int c = 0; c < 3; ++c) out[i][c] = (unsigned char)channels[c];
  }
}

/* Take over what was found to be a manifest, and compare its parts with each other. */
static int take(const char* content, const char* artifact, const char* path, Manifest* manifest, char* why, size_t size) {
  char name[128] = "enet.so", dtype[16] = "float32", layout[8] = "NCHW";
  const char* again = "compile it again";
  json_string(json_find(content, "library"), name, sizeof name);
  json_string(json_find(content, "output.dtype"), dtype, sizeof dtype);
  json_string(json_find(content, "output.layout"), layout, sizeof layout);
  json_string(json_find(content, "target.name"), manifest->target, sizeof manifest->target);
  make_printable(manifest->target);
  if (json_string(json_find(content, "hashes.library"), manifest->hash, sizeof manifest->hash)) manifest->hash[0] = '\0';
  snprintf(manifest->library, sizeof manifest->library, "%s/%s", artifact, name);
  copy_cores(json_find(content, "target.core_list"), manifest);
  manifest->gpu = json_is(json_find(content, "target.device"), "cuda");
  if (json_string(json_find(content, "library_report.device.arch"), manifest->gpu_arch, sizeof manifest->gpu_arch))
    manifest->gpu_arch[0] = '\0';
  manifest->labels = strcmp(layout, "NHW") == 0;
  copy_three(json_find(content, "input.mean"), manifest->mean);
  copy_three(json_find(content, "input.std"), manifest->std);
  copy_palette(json_find(content, "palette"), manifest->palette);
  copy_shape(json_find(content, "input.shape"), manifest->input);
  int rank = copy_shape(json_find(content, "output.shape"), manifest->output);
  if (rank != (manifest->labels ? 3 : 4) || strcmp(dtype, manifest->labels ? "uint8" : "float32"))
    return fail(why, size, "%s has an output that is neither float32 NCHW nor uint8 NHW; %s", path, again);
  int64_t classes = json_count(json_find(content, "classes"));
  if (json_count(json_find(content, "palette")) != classes || (!manifest->labels && manifest->output[1] != classes))
    return fail(why, size, "%s has %lld classes, and other numbers of colours or output channels; %s", path,
                (long long)classes, again);
  int64_t counted;
  if (json_integer(json_find(content, "kernel_count"), &counted) || counted != json_count(json_find(content, "kernels")))
    return fail(why, size, "%s has a kernel_count that is not the number of its kernels; %s", path, again);
  if (bytes_of(manifest->input, 4, sizeof(float), &manifest->input_bytes) ||
      bytes_of(manifest->output, 4, manifest->labels ? 1 : sizeof(float), &manifest->output_bytes))
    return fail(why, size, "%s has shapes that no memory holds; %s", path, again);
  return 0;
}

/* ---- whether this machine can load it ---- */

/* The instruction set of a shared library of this kernel's byte order (System V ABI, gABI chapter 4); -1 if it is none. */
static int elf_machine(const char* library, char* why, size_t size) {
  unsigned char header[20];
  FILE* file = open_file(library, why, size);
  if (file == NULL) return -1;
  size_t got = fread(header, 1, sizeof header, file);
  fclose(file);
  if (got < sizeof header || memcmp(header, "\x7f" "ELF", 4) || header[5] != 1)
    return fail(why, size, "%s is not a shared library for this machine; compile it again", library);
  return header[18] | header[19] << 8;
}

static int check_machine(const char* content, const Manifest* manifest, char* why, size_t size) {
  static const char* const names[] = {"x86_64", "aarch64"};
  static const int numbers[] = {62, 183};
  struct utsname system;
  if (uname(&system)) return fail(why, size, "cannot ask the kernel what machine this is");
  const char* made = json_is(json_find(content, "target.architecture"), names[0]) ? names[0] : names[1];
  int number = elf_machine(manifest->library, why, size);
  if (number < 0) return -1;
  for (int i = 0; i < 2 && strcmp(made, system.machine) == 0; ++i)
    if (strcmp(names[i], system.machine) == 0 && numbers[i] == number) return 0;
  return fail(why, size, "%s was compiled for %s (ELF machine %d), and this machine is %s; compile it for this board",
              manifest->library, made, number, system.machine);
}

/* Whether a word stands in a line, between blanks. */
static int stands_in(const char* line, const char* word) {
  size_t length = strlen(word);
  for (const char* p = line; length > 0 && (p = strstr(p, word)) != NULL; ++p)
    if (p > line && strchr(" \t:", p[-1]) != NULL && strchr(" \t", p[length]) != NULL) return 1; /* the line's end, too */
  return 0;
}

/* The features that every processor must have, spelt as the kernel spells them in /proc/cpuinfo. */
static int check_features(const char* content, const char* artifact, char* why, size_t size) {
  size_t length;
  const char* wanted = json_find(content, "target.cpu_features");
  if (json_next(wanted, NULL) == NULL) return 0;
  /* Where there is no such line, as in an emulator that shows the file of its host, the library itself will tell. */
  const char* name_of_line = json_is(json_find(content, "target.architecture"), "x86_64") ? "flags" : "Features";
  char* info = read_text("/proc/cpuinfo", MOST_CPUINFO, &length, why, size);
  if (info == NULL) return -1;
  int missing = 0;
  char *rest = info, name[256] = "";
  for (char* line; !missing && (line = strsep(&rest, "\n")) != NULL;) {
    /* A board with big and little cores may list different features: code may run on any of them. */
    size_t key = strcspn(line, " \t:");
    if (key != strlen(name_of_line) || strncmp(line, name_of_line, key)) continue;
    const char* said = line + key;
    for (const char* p = json_next(wanted, NULL); p != NULL && !missing; p = json_next(wanted, p))
      missing = json_string(p, name, sizeof name) || !stands_in(said, name);
  }
  free(info);
  return missing ? fail(why, size, "%s is for a processor with %s, which this one lacks; compile it for this board", artifact, name)
                 : 0;
}

static int check_version(const char* content, const char* key, const char* built, const char* path, char* why, size_t size) {
  char version[64];
  json_string(json_find(content, key), version, sizeof version);
  if (strcmp(version, built) == 0) return 0;
  return fail(why, size, "%s was compiled with TVM's %s, and this runner has %s; make both with one release", path, version, built);
}

static int check_library(const Manifest* manifest, char* why, size_t size) {
  char here[65];
  if (sha256_file(manifest->library, here, why, size)) return -1;
  if (strcmp(here, manifest->hash) == 0) return 0;
  return fail(why, size, "%s is not the file its manifest was written for (truncated or edited); copy it again",
              manifest->library);
}

int read_manifest(const char* artifact, Manifest* manifest, char* why, size_t size) {
  char path[600];
  size_t length;
  Wrong wrong = {""};
  memset(manifest, 0, sizeof *manifest);
  if ((size_t)snprintf(path, sizeof path, "%s/manifest.json", artifact) >= sizeof path)
    return fail(why, size, "the path %s is too long", artifact);
  char* content = read_text(path, MOST_BYTES, &length, why, size);
  if (content == NULL) return -1;
  int64_t version = 0;
  size_t mark = strncmp(content, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0; /* Windows' editors put it before UTF-8 */
  const char* value = content + mark;
  value += strspn(value, " \t\r\n");
  int failed;
  if (json_check(content + mark, length - mark))
    failed = fail(why, size, "%s is not valid JSON; compile it again", path);
  else if (json_integer(json_find(value, "schema_version"), &version) || version != 1)
    failed = fail(why, size, "%s is no manifest that this runner reads (schema_version must be 1); compile it again", path);
  else if (object(value, manifest_fields, &wrong))
    failed = fail(why, size, "%s is not a complete manifest (%s); compile it again", path,
                  wrong.name[0] ? wrong.name : "no object");
  else
    failed = take(value, artifact, path, manifest, why, size) || check_library(manifest, why, size) ||
             check_version(value, "versions.apache_tvm", APACHE_TVM, path, why, size) ||
             check_version(value, "versions.apache_tvm_ffi", APACHE_TVM_FFI, path, why, size) ||
             check_machine(value, manifest, why, size) ||
             check_features(value, artifact, why, size);
  free(content);
  return failed ? -1 : 0;
}

#define _GNU_SOURCE
#include "facts.h"

#include <glob.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>

#include "cpus.h"

typedef struct {
  char* out;
  size_t size, used;
} Text;

static void add(Text* text, const char* format, ...) {
  va_list arguments;
  if (text->used >= text->size) return;
  va_start(arguments, format);
  text->used += (size_t)vsnprintf(text->out + text->used, text->size - text->used, format, arguments);
  va_end(arguments);
}

/* A string of JSON; what would need an escape becomes a blank. */
static void add_string(Text* text, const char* key, const char* value) {
  char clean[4096];
  size_t length = 0;
  for (; *value && length + 1 < sizeof clean; ++value)
    clean[length++] = *value < ' ' || *value == '"' || *value == '\\' ? ' ' : *value;
  clean[length] = '\0';
  add(text, ", \"%s\": \"%s\"", key, clean);
}

/* The first line of a file, without its end; 0 if there is none. */
static int first_line(const char* path, char* line, size_t size) {
  FILE* file = fopen(path, "r");
  if (file == NULL) return 0;
  int found = fgets(line, (int)size, file) != NULL;
  fclose(file);
  if (found) line[strcspn(line, "\n")] = '\0';
  return found;
}

/* What follows the colon in the first line of a file that begins with `key`. */
static int field(const char* path, const char* key, char* value, size_t size) {
  char line[4096];
  int found = 0;
  FILE* file = fopen(path, "r");
  if (file == NULL) return 0;
  while (!found && fgets(line, sizeof line, file) != NULL) {
    const char* colon = strchr(line, ':');
    if (colon == NULL || strncmp(line, key, strlen(key))) continue;
    ++colon;
    snprintf(value, size, "%s", colon + strspn(colon, " \t"));
    value[strcspn(value, "\n")] = '\0';
    found = 1;
  }
  fclose(file);
  return found;
}

static void add_megabytes(Text* text, const char* key, const char* path, const char* name) {
  char value[64];
  if (field(path, name, value, sizeof value)) add(text, ", \"%s\": %.3f", key, strtod(value, NULL) / 1024);
}

/* Whether a word stands in a text, between blanks. */
static int has_word(const char* text, const char* word, size_t length) {
  for (size_t step; *(text += strspn(text, " \t\n")); text += step)
    if ((step = strcspn(text, " \t\n")) == length && strncmp(text, word, length) == 0) return 1;
  return 0;
}

void shared_features(const char* cpuinfo, char* out, size_t size) {
  char line[8192];
  FILE* file = fopen(cpuinfo, "r");
  int first = 1;
  *out = '\0';
  if (file == NULL) return;
  while (fgets(line, sizeof line, file) != NULL) {
    size_t key = strcspn(line, " \t:");
    const char* colon = strchr(line, ':');
    int named = (key == 5 && strncmp(line, "flags", key) == 0) || (key == 8 && strncmp(line, "Features", key) == 0);
    if (colon == NULL || !named) continue;
    char kept[8192] = "";
    size_t used = 0, length;
    for (const char* word = first ? colon + 1 : out; *(word += strspn(word, " \t\n")); word += length) {
      length = strcspn(word, " \t\n");
      if (used + length + 2 > sizeof kept || !has_word(colon + 1, word, length)) continue;
      used += (size_t)snprintf(kept + used, sizeof kept - used, "%s%.*s", used > 0 ? " " : "", (int)length, word);
    }
    snprintf(out, size, "%s", kept);
    first = 0;
  }
  fclose(file);
}

static void add_features(Text* text) {
  char words[8192], *rest = words;
  shared_features("/proc/cpuinfo", words, sizeof words);
  if (*words == '\0') return;
  add(text, ", \"cpu_features\": [");
  for (int first = 1; (rest += strspn(rest, " \""), *rest); first = 0) {
    size_t length = strcspn(rest, " \"");
    add(text, "%s\"%.*s\"", first ? "" : ", ", (int)length, rest);
    rest += length;
  }
  add(text, "]");
}

/* The numbers in files of the kernel, each a thousandth of the unit: all of them, or the largest alone. */
static void add_thousandths(Text* text, const char* key, const char* pattern, int largest) {
  char line[64];
  glob_t files;
  int count = 0;
  double most = 0;
  if (glob(pattern, 0, NULL, &files) != 0) return;
  for (size_t i = 0; i < files.gl_pathc; ++i) {
    if (!first_line(files.gl_pathv[i], line, sizeof line)) continue;
    double value = strtod(line, NULL) / 1000;
    if (!largest && count == 0) add(text, ", \"%s\": [%.3f", key, value);
    if (!largest && count > 0) add(text, ", %.3f", value);
    if (count++ == 0 || value > most) most = value;
  }
  globfree(&files);
  if (largest && count) add(text, ", \"%s\": %.3f", key, most);
  if (!largest && count) add(text, "]");
}

void device_facts(char* out, size_t size) {
  Text text = {out, size, 0};
  char line[512];
  ThreadCount count;
  struct utsname system;
  struct statvfs disk;
  add(&text, "{\"versions\": {\"apache-tvm\": \"%s\", \"apache-tvm-ffi\": \"%s\"}", APACHE_TVM, APACHE_TVM_FFI);
  int named = first_line("/sys/firmware/devicetree/base/model", line, sizeof line);
  if (named || field("/proc/cpuinfo", "model name", line, sizeof line) || field("/proc/cpuinfo", "Model", line, sizeof line))
    add_string(&text, "model", line);
  if (uname(&system) == 0) {
    add_string(&text, "architecture", system.machine);
    snprintf(line, sizeof line, "%s %s", system.sysname, system.release);
    add_string(&text, "system", line);
    if (!named && strstr(text.out, "\"model\"") == NULL) add_string(&text, "model", system.machine);
  }
  if (default_threads("", NULL, &count, line, sizeof line) == 0) {
    add(&text, ", \"cpus\": %d", count.threads);
    describe_threads(&count, line, sizeof line);
    add_string(&text, "processors", line);
  }
  add_features(&text);
  if (first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", line, sizeof line))
    add_string(&text, "governor", line);
  add_thousandths(&text, "megahertz", "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq", 0);
  add_thousandths(&text, "celsius", "/sys/class/thermal/thermal_zone*/temp", 1);
  add_megabytes(&text, "peak_memory_mb", "/proc/self/status", "VmHWM");
  add_megabytes(&text, "memory_mb", "/proc/meminfo", "MemTotal");
  if (statvfs(".", &disk) == 0) add(&text, ", \"free_disk_mb\": %.3f", (double)disk.f_bavail * (double)disk.f_frsize / 1e6);
  add(&text, "}");
}

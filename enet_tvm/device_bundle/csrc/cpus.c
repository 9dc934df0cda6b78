#define _GNU_SOURCE
#include "cpus.h"

#include <ctype.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST_THREADS 1024
#define PATH 4096

/* The number that a text of decimal digits, at most `digits`, stands for; 0 if it is none or zero. */
static long long positive(const char* text, int digits) {
  int length = (int)strspn(text, "0123456789");
  return length < 1 || length > digits || text[length] != '\0' ? 0 : strtoll(text, NULL, 10);
}

/* The text without white space around it. */
static char* strip(char* text) {
  while (isspace((unsigned char)*text)) ++text;
  for (size_t length = strlen(text); length > 0 && isspace((unsigned char)text[length - 1]);) text[--length] = '\0';
  return text;
}

/* A small file of one group; 0 if there is none. */
static int contents(const char* folder, const char* name, char* text, size_t size) {
  char path[2 * PATH];
  if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) return 0;
  FILE* file = fopen(path, "r");
  if (file == NULL) return 0;
  size_t length = fread(text, 1, size - 1, file);
  int whole = length < size - 1;
  fclose(file);
  text[length] = '\0';
  return whole && strlen(text) == length;
}

/* The quota of one group, in processors; 0 if it has none ("max" and -1 stand for that). */
static double group_quota(const char* folder, int version) {
  char text[256], other[256], *quota, *period;
  if (version == 2) {
    if (!contents(folder, "cpu.max", text, sizeof text)) return 0;
    quota = strip(text);
    if ((period = strchr(quota, ' ')) == NULL) return 0;
    *period++ = '\0';
  } else {
    if (!contents(folder, "cpu.cfs_quota_us", text, sizeof text)) return 0;
    if (!contents(folder, "cpu.cfs_period_us", other, sizeof other)) return 0;
    quota = strip(text);
    period = strip(other);
  }
  long long most = positive(quota, 15), of = positive(period, 15);
  return most > 0 && of > 0 ? (double)most / (double)of : 0;
}

/* Whether a word is in a list that commas separate. */
static int listed(const char* list, const char* word) {
  for (size_t length; *list != '\0'; list += length + (list[length] == ',')) {
    length = strcspn(list, ",");
    if (length == strlen(word) && strncmp(list, word, length) == 0) return 1;
  }
  return 0;
}

/* Whether a path has a component "..". */
static int climbs(const char* path) {
  for (size_t length; *path != '\0'; path += length + (path[length] == '/')) {
    length = strcspn(path, "/");
    if (length == 2 && strncmp(path, "..", 2) == 0) return 1;
  }
  return 0;
}

/* Undo, in place, the octal escapes of /proc/self/mountinfo. */
static void unescape(char* text) {
  char* to = text;
  for (const char* from = text; *from != '\0';) {
    if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
      *to++ = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
      from += 4;
    } else {
      *to++ = *from++;
    }
  }
  *to = '\0';
}

static FILE* open_in(const char* root, const char* name) {
  char path[PATH];
  return snprintf(path, sizeof path, "%s/%s", root, name) < (int)sizeof path ? fopen(path, "r") : NULL;
}

/* The process's groups by version of control groups, from lines such as "4:cpu,cpuacct:/a" and "0::/a"; empty for none. */
static void find_groups(const char* root, char groups[3][PATH]) {
  char* line = NULL;
  size_t room = 0;
  FILE* file = open_in(root, "proc/self/cgroup");
  groups[1][0] = groups[2][0] = '\0';
  if (file == NULL) return;
  while (getline(&line, &room, file) > 0) {
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':'), *path = controllers == NULL ? NULL : strchr(controllers + 1, ':');
    if (path == NULL || path[1] != '/' || strlen(path + 1) >= PATH) continue;
    *controllers++ = *path++ = '\0';
    int version = strcmp(line, "0") == 0 && *controllers == '\0' ? 2 : listed(controllers, "cpu") ? 1 : 0;
    if (version != 0 && groups[version][0] == '\0') strcpy(groups[version], path);
  }
  free(line);
  fclose(file);
}

/* The smallest quota on the way from the mount point down to a group of it, or `least` if that is smaller (and not 0). */
static double smallest_quota(const char* root, char* inside, const char* mount_point, const char* group, int version, double least) {
  char folder[2 * PATH];
  size_t length = strlen(inside);
  while (length > 0 && inside[length - 1] == '/') --length;
  /* In a container the mount may begin at the group itself, or the group's path mean nothing here. */
  int known = !climbs(group) && strncmp(group, inside, length) == 0 && (group[length] == '/' || group[length] == '\0');
  const char* rest = known ? group + length : "";
  int used = snprintf(folder, sizeof folder, "%s%s", root, mount_point);
  if (used >= (int)sizeof folder - PATH) return least;
  for (;;) {
    double quota = group_quota(folder, version);
    if (quota > 0 && (least == 0 || quota < least)) least = quota;
    rest += strspn(rest, "/");
    if (*rest == '\0') return least;
    size_t part = strcspn(rest, "/");
    used += snprintf(folder + used, sizeof folder - (size_t)used, "/%.*s", (int)part, rest);
    if (used >= (int)sizeof folder) return least;
    rest += part;
  }
}

double cpu_quota(const char* root) {
  static char groups[3][PATH];
  char* line = NULL;
  size_t room = 0;
  double least = 0;
  find_groups(root, groups);
  FILE* file = open_in(root, "proc/self/mountinfo");
  if (file == NULL) return 0;
  while (getline(&line, &room, file) > 0) {
    line[strcspn(line, "\n")] = '\0';
    char* after = strstr(line, " - ");
    if (after == NULL) continue;
    *after = '\0';
    /* The fields are separated by single blanks: root and mount point are the fourth and the fifth of six or more. */
    char *fields[6], *rest = line;
    int count = 0;
    while (count < 6 && rest != NULL) fields[count++] = strsep(&rest, " ");
    if (count < 6 || fields[3][0] != '/' || fields[4][0] != '/' || strlen(fields[4]) >= PATH) continue;
    rest = after + 3;
    char *kind = strsep(&rest, " "), *source = strsep(&rest, " "), *options = strsep(&rest, " ");
    int first = strcmp(kind, "cgroup") == 0 && source != NULL && options != NULL && listed(options, "cpu");
    int version = strcmp(kind, "cgroup2") == 0 ? 2 : first;
    if (version == 0 || groups[version][0] == '\0') continue;
    unescape(fields[3]);
    unescape(fields[4]);
    least = smallest_quota(root, fields[3], fields[4], groups[version], version, least);
  }
  free(line);
  fclose(file);
  return least;
}

/* Processors as the kernel lists them, such as "0,4-7". */
static void number_ranges(const cpu_set_t* cpus, char* text, size_t size) {
  size_t used = 0;
  text[0] = '\0';
  for (int first = 0; first < CPU_SETSIZE; ++first) {
    if (!CPU_ISSET(first, cpus)) continue;
    int last = first;
    while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, cpus)) ++last;
    int length = first == last ? snprintf(text + used, size - used, "%s%d", used ? "," : "", first)
                               : snprintf(text + used, size - used, "%s%d-%d", used ? "," : "", first, last);
    if (length >= (int)(size - used)) return;
    used += (size_t)length;
    first = last;
  }
}

int bind_cores(const int* wanted, int count, long threads, char* text, size_t size) {
  char names[128], ranges[128];
  cpu_set_t usable, named, present;
  text[0] = '\0';
  if (count == 0 || sched_getaffinity(0, sizeof usable, &usable)) return count == 0 ? 0 : -1;
  CPU_ZERO(&named);
  for (int i = 0; i < count; ++i) CPU_SET(wanted[i], &named);
  CPU_AND(&present, &usable, &named);
  number_ranges(&named, names, sizeof names);
  number_ranges(&present, ranges, sizeof ranges);
  int here = CPU_COUNT(&present);
  if (here == 0) {
    snprintf(text, size, "all processors: none of the cores %s, which the target names, can be used here", names);
    return 0;
  }
  if (threads > here) {
    snprintf(text, size, "all processors: %ld threads are more than the cores %s, which the target names", threads, names);
    return 0;
  }
  if (CPU_EQUAL(&present, &named))
    snprintf(text, size, "cores %s", ranges);
  else
    snprintf(text, size, "cores %s: of the cores %s, which the target names, the others cannot be used here", ranges, names);
  return sched_setaffinity(0, sizeof present, &present) ? -1 : here;
}

int default_threads(const char* root, const char* bound, ThreadCount* count, char* error, size_t size) {
  cpu_set_t usable;
  long there = sysconf(_SC_NPROCESSORS_ONLN);
  const char* wish = getenv("TVM_NUM_THREADS");
  double quota = cpu_quota(root);
  count->allowed = sched_getaffinity(0, sizeof usable, &usable) == 0 ? CPU_COUNT(&usable) : there > 0 ? (int)there : 1;
  count->processors = there > count->allowed ? (int)there : count->allowed;
  count->threads = count->allowed;
  snprintf(count->why, sizeof count->why, "%s",
           count->allowed == count->processors ? "" : bound != NULL ? bound : "those that it may run on");
  if (quota > 0 && quota < count->threads) {
    /* Rounded down: a pool of one thread more than the quota pays for is stopped in the middle of a forward pass. */
    int worth = quota < 1 ? 1 : (int)quota;
    if (worth < count->threads) {
      count->threads = worth;
      snprintf(count->why, sizeof count->why, "the CPU quota of %.4g of its control group", quota);
    }
  }
  if (wish == NULL) return 0;
  long long chosen = positive(wish, 4);
  if (chosen < 1 || chosen > MOST_THREADS) {
    snprintf(error, size, "TVM_NUM_THREADS is '%.40s' and must be a number from 1 to %d; set it so, or unset it", wish, MOST_THREADS);
    return -1;
  }
  count->threads = chosen < count->allowed ? (int)chosen : count->allowed;
  snprintf(count->why, sizeof count->why, "%s", count->threads < count->processors ? "TVM_NUM_THREADS" : "");
  return 0;
}

void describe_threads(const ThreadCount* count, char* text, size_t size) {
  char many[48];
  snprintf(many, sizeof many, "%d processor%s", count->processors, count->processors == 1 ? "" : "s");
  if (count->why[0] == '\0')
    snprintf(text, size, "%s", many);
  else
    snprintf(text, size, "%d of %s: %s", count->threads, many, count->why);
}

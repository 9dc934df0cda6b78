#define _GNU_SOURCE
#include "figures.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

double milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

static int by_size(const void* a, const void* b) {
  double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

void sort_times(double* values, long count) { qsort(values, (size_t)count, sizeof *values, by_size); }

double percentile(const double* sorted, long count, double percent) {
  double at = percent / 100 * (double)(count - 1);
  long below = (long)at;
  return below + 1 < count ? sorted[below] + (at - (double)below) * (sorted[below + 1] - sorted[below]) : sorted[below];
}

void add_time(Times* times, double value) { times->values[times->count++ % KEPT_TIMES] = value; }

double percentile_of(const Times* times, double percent) {
  double sorted[KEPT_TIMES];
  long count = times->count < KEPT_TIMES ? times->count : KEPT_TIMES;
  if (count == 0) return 0;
  memcpy(sorted, times->values, (size_t)count * sizeof *sorted);
  sort_times(sorted, count);
  return percentile(sorted, count, percent);
}

void put_times(FILE* file, const Times* times) {
  fprintf(file, "{\"p50\": %.6f, \"p90\": %.6f, \"p99\": %.6f}", percentile_of(times, 50), percentile_of(times, 90),
          percentile_of(times, 99));
}

void put_json_string(FILE* file, const char* text) {
  fputc('"', file);
  for (; *text; ++text) {
    if ((unsigned char)*text < 0x20)
      fprintf(file, "\\u%04x", (unsigned char)*text);
    else
      fprintf(file, strchr("\"\\", *text) ? "\\%c" : "%c", *text);
  }
  fputc('"', file);
}

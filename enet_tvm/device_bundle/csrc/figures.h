/* Durations, in milliseconds, and what is said of many of them. */
#ifndef ENET_TVM_FIGURES_H
#define ENET_TVM_FIGURES_H

#include <stdio.h>

enum { KEPT_TIMES = 4096 }; /* two minutes at 30 frames a second */

/* The last durations of something that goes on; all zeros at first. */
typedef struct {
  double values[KEPT_TIMES];
  long count;
} Times;

/* The clock of V4L2's and of this file's times. */
double milliseconds(void);

/* Sort durations, the shortest first. */
void sort_times(double* values, long count);

/* Between the two nearest of sorted values, as numpy.percentile. */
double percentile(const double* sorted, long count, double percent);

void add_time(Times* times, double value);

/* A percentile of the durations that are kept; 0 of none. */
double percentile_of(const Times* times, double percent);

/* Write {"p50": ..., "p90": ..., "p99": ...}. */
void put_times(FILE* file, const Times* times);

/* Write a text as JSON. */
void put_json_string(FILE* file, const char* text);

#endif

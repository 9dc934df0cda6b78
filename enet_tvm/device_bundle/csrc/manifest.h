/* What an artifact is of, and whether this machine can load it: the checks of enet_tvm.artifact.check_artifact, in C. */
#ifndef ENET_TVM_MANIFEST_H
#define ENET_TVM_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

#include "cpus.h"

typedef struct {
  char library[800]; /* its path; more than the longest path to a manifest, and a name */
  char hash[65];
  char target[128]; /* cut where it is longer: it is only told */
  int cores[MOST_CORES], core_count; /* processors that threads are bound to; none for any */
  int gpu;
  char gpu_arch[16]; /* architecture of its device code, as "sm_53"; empty where it has none or does not say */
  int64_t input[4], output[4];
  int labels; /* whether the output is N, H, W uint8 classes, with 1 behind, instead of N, C, H, W float32 logits */
  double mean[3], std[3];
  unsigned char palette[256][3]; /* RGB of each class, and black */
  size_t input_bytes, output_bytes;
} Manifest;

/* Read the manifest of an artifact and check all of it, then the library's hash, the versions of TVM and the processor.
   -1 and a sentence in `why` at the first thing that does not fit. Both loaders give the same verdict on every artifact
   (tests/device_bundle/test_acceptance.py). */
int read_manifest(const char* artifact, Manifest* manifest, char* why, size_t size);

#endif

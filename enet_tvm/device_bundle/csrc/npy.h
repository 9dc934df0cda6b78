/* Arrays of float32 as files: NumPy's .npy. */
#ifndef ENET_TVM_NPY_H
#define ENET_TVM_NPY_H

#include <stddef.h>
#include <stdint.h>

/* Fill `out` with the float32 array of a .npy file, which must have the shape N, C, H, W; -1 and a sentence in `why`. */
int read_npy(const char* path, const int64_t shape[4], float* out, char* why, size_t size);

/* Write a float32 array of four dimensions; the file appears complete or not at all. */
int write_npy(const char* path, const int64_t shape[4], const float* values, char* why, size_t size);

#endif

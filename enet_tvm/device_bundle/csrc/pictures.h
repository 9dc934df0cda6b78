/* Inputs and outputs as files: .npy arrays of float32, .ppm pictures, .pgm label maps. */
#ifndef ENET_TVM_PICTURES_H
#define ENET_TVM_PICTURES_H

#include <stddef.h>
#include <stdint.h>

/* Fill `out` with the float32 array of a .npy file, which must have the shape N, C, H, W; -1 and a sentence in `why`. */
int read_npy(const char* path, const int64_t shape[4], float* out, char* why, size_t size);

/* Fill `out` (1, 3, H, W) with a .ppm picture of exactly W x H, scaled to 0..1 and normalised; -1 and a sentence in `why`. */
int read_ppm(const char* path, const int64_t shape[4], const double mean[3], const double std[3], float* out, char* why,
             size_t size);

/* Write a float32 array of four dimensions; the file appears complete or not at all. */
int write_npy(const char* path, const int64_t shape[4], const float* values, char* why, size_t size);

/* The class with the largest logit of every pixel of picture 0, the first of equals. */
void most_likely(const int64_t shape[4], const float* logits, unsigned char* labels);

/* Write a class for every pixel as an 8-bit grey .pgm; the file appears complete or not at all. */
int write_labels(const char* path, int64_t width, int64_t height, const unsigned char* labels, char* why, size_t size);

#endif

#include "network_input.h"

#include <stdlib.h>

#include "resample.h"
#include "text.h"

int begin_inputs(const Manifest* manifest, const char* name, InputMaker* maker, char* why, size_t size) {
  const int64_t* shape = manifest->input;
  if (shape[0] != 1 || shape[1] != 3)
    return fail(why, size, "the network takes %lld pictures at once, and %s is one; give a .npy file of them", (long long)shape[0],
                name);
  maker->width = (int)shape[3];
  maker->height = (int)shape[2];
  /* As the segmenter does it in float32: pixel * (1 / (255 * std)) - mean / std. */
  for (int c = 0; c < 3; ++c) {
    maker->scale[c] = (float)(1 / (255 * manifest->std[c]));
    maker->shift[c] = (float)(-manifest->mean[c] / manifest->std[c]);
  }
  maker->pixels = malloc((size_t)maker->width * (size_t)maker->height * 3);
  return maker->pixels != NULL ? 0 : fail(why, size, "there is no memory for %s at the network's size", name);
}

int make_input(const InputMaker* maker, const Picture* picture, float* out) {
  if (resize_picture(picture, maker->width, maker->height, maker->pixels)) return -1;
  size_t plane = (size_t)maker->width * (size_t)maker->height;
  /* A value is one of 256: looked up, it is also rounded by itself, and not contracted with the addition. */
  for (int c = 0; c < 3; ++c) {
    float values[256];
    for (int i = 0; i < 256; ++i) {
      volatile float product = (float)i * maker->scale[c];
      values[i] = product + maker->shift[c];
    }
    const unsigned char* p = maker->pixels + c;
    for (size_t i = 0; i < plane; ++i, p += 3) out[(size_t)c * plane + i] = values[*p];
  }
  return 0;
}

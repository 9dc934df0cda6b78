#include "resample.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 3, FRACTION = 32 - 8 - 2 }; /* bits of a weight: sums of 8-bit values fit 32 */

/* What each pixel along one direction is made of: `count` neighbours from `first` on, weights[i * room ...]. */
typedef struct {
  int size, room;
  int *first, *count;
  int32_t* weights;
} Weights;

static void free_weights(Weights* weights) {
  free(weights->first);
  free(weights->weights);
}

static double triangle(double x) {
  x = fabs(x);
  return x < 1 ? 1 - x : 0;
}

static int make_weights(int from, int to, Weights* weights) {
  double scale = (double)from / to, width = scale < 1 ? 1 : scale, narrowing = 1 / width;
  int room = (int)ceil(width) * 2 + 1;
  *weights = (Weights){to, room, malloc(2 * (size_t)to * sizeof(int)), NULL,
                       malloc((size_t)to * (size_t)room * sizeof(int32_t))};
  double* exact = malloc((size_t)room * sizeof *exact);
  int good = weights->first != NULL && weights->weights != NULL && exact != NULL;
  weights->count = good ? weights->first + to : NULL;
  for (int i = 0; i < to && good; ++i) {
    double centre = (i + 0.5) * scale, sum = 0;
    double begin = centre - width + 0.5, end = centre + width + 0.5;
    int first = begin < 0 ? 0 : (int)begin, last = end > from ? from : (int)end;
    for (int k = first; k < last; ++k) {
      double offset = k - centre + 0.5;
      exact[k - first] = triangle(offset * narrowing);
      sum += exact[k - first];
    }
    weights->first[i] = first;
    weights->count[i] = last - first;
    for (int k = 0; k < last - first; ++k) {
      double share = (sum != 0 ? exact[k] / sum : exact[k]) * (1 << FRACTION);
      weights->weights[(size_t)i * (size_t)room + (size_t)k] = (int32_t)(share + 0.5);
    }
  }
  free(exact);
  if (good) return 0;
  free_weights(weights);
  return -1;
}

static unsigned char rounded(int32_t sum) {
  sum >>= FRACTION;
  return sum < 0 ? 0 : sum > 255 ? 255 : (unsigned char)sum;
}

static void resize_row(const unsigned char* in, const Weights* weights, unsigned char* out) {
  for (int x = 0; x < weights->size; ++x, out += CHANNELS) {
    const int32_t* weight = weights->weights + (size_t)x * (size_t)weights->room;
    const unsigned char* p = in + (size_t)weights->first[x] * CHANNELS;
    int32_t red = 1 << (FRACTION - 1), green = red, blue = red;
    for (int k = 0; k < weights->count[x]; ++k, p += CHANNELS) {
      red += p[0] * weight[k];
      green += p[1] * weight[k];
      blue += p[2] * weight[k];
    }
    out[0] = rounded(red);
    out[1] = rounded(green);
    out[2] = rounded(blue);
  }
}

/* A row of the result from the rows around it, values side by side, so that the compiler takes several at a time. */
static void mix_rows(const unsigned char* in, size_t row, const int32_t* weight, int count, int32_t* sums, unsigned char* out) {
  for (size_t i = 0; i < row; ++i) sums[i] = 1 << (FRACTION - 1);
  for (int k = 0; k < count; ++k, in += row)
    for (size_t i = 0; i < row; ++i) sums[i] += in[i] * weight[k];
  for (size_t i = 0; i < row; ++i) out[i] = rounded(sums[i]);
}

static int resize_across(const unsigned char* in, int width, int height, int new_width, unsigned char* out) {
  Weights weights;
  if (make_weights(width, new_width, &weights)) return -1;
  for (size_t y = 0; y < (size_t)height; ++y)
    resize_row(in + y * (size_t)width * CHANNELS, &weights, out + y * (size_t)new_width * CHANNELS);
  free_weights(&weights);
  return 0;
}

static int resize_down(const unsigned char* in, int width, int height, int new_height, unsigned char* out) {
  Weights weights;
  size_t row = (size_t)width * CHANNELS;
  int32_t* sums = malloc(row * sizeof *sums);
  if (sums == NULL || make_weights(height, new_height, &weights)) {
    free(sums);
    return -1;
  }
  for (int y = 0; y < new_height; ++y)
    mix_rows(in + (size_t)weights.first[y] * row, row, weights.weights + (size_t)y * (size_t)weights.room, weights.count[y], sums,
             out + (size_t)y * row);
  free_weights(&weights);
  free(sums);
  return 0;
}

int resize_picture(const Picture* picture, int width, int height, unsigned char* out) {
  int across = width != picture->width, down = height != picture->height;
  const unsigned char* pixels = picture->pixels;
  if (!across && !down) return memcpy(out, pixels, (size_t)width * (size_t)height * CHANNELS), 0;
  if (!down) return resize_across(pixels, picture->width, height, width, out);
  if (!across) return resize_down(pixels, width, picture->height, height, out);
  /* Both round, so which is first can make a difference of 1. Pillow 13 begins with the rows where more than twice as many of
     them go as of columns (found by trying sizes); earlier releases never do. */
  int rows_first = picture->height > height && picture->height - height > 2 * (picture->width - width);
  size_t bytes = (rows_first ? (size_t)picture->width * (size_t)height : (size_t)width * (size_t)picture->height) * CHANNELS;
  unsigned char* between = malloc(bytes);
  int failed = between == NULL;
  if (rows_first)
    failed = failed || resize_down(pixels, picture->width, picture->height, height, between) ||
             resize_across(between, picture->width, height, width, out);
  else
    failed = failed || resize_across(pixels, picture->width, picture->height, width, between) ||
             resize_down(between, width, picture->height, height, out);
  free(between);
  return failed ? -1 : 0;
}

void resize_labels(const unsigned char* labels, int width, int height, int new_width, int new_height, unsigned char* out) {
  double across = (double)width / new_width, down = (double)height / new_height, at_y = down * 0.5;
  for (int y = 0; y < new_height; ++y, at_y += down) {
    const unsigned char* row = labels + (size_t)((int)at_y < height ? (int)at_y : height - 1) * (size_t)width;
    double at_x = across * 0.5; /* added up, as Pillow does it, and not multiplied, which rounds otherwise */
    for (int x = 0; x < new_width; ++x, at_x += across) *out++ = row[(int)at_x < width ? (int)at_x : width - 1];
  }
}

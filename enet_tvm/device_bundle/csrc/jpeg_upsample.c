#include "jpeg_upsample.h"

#include <string.h>

/* A new sample lies a quarter from the old one, and takes a quarter of the neighbour on its side; along both directions
   sixteenths. Rounding alternates between neighbours, so that none is brighter on the whole. */

static void twice_across(const unsigned char* in, int width, unsigned char* out) {
  for (int x = 0; x < width; ++x) {
    int left = x > 0 ? in[x - 1] : in[x], right = x + 1 < width ? in[x + 1] : in[x];
    out[2 * x] = (unsigned char)((3 * in[x] + left + 1) >> 2);
    out[2 * x + 1] = (unsigned char)((3 * in[x] + right + 2) >> 2);
  }
}

static void twice_down(const unsigned char* near, const unsigned char* far, int width, int lower, unsigned char* out) {
  for (int x = 0; x < width; ++x) out[x] = (unsigned char)((3 * near[x] + far[x] + (lower ? 2 : 1)) >> 2);
}

static void twice_both(const unsigned char* near, const unsigned char* far, int width, unsigned char* out) {
  int last = 3 * near[0] + far[0], here = last;
  for (int x = 0; x < width; ++x) {
    int next = x + 1 < width ? 3 * near[x + 1] + far[x + 1] : here;
    out[2 * x] = (unsigned char)((3 * here + last + 8) >> 4);
    out[2 * x + 1] = (unsigned char)((3 * here + next + 7) >> 4);
    last = here;
    here = next;
  }
}

void upsample_row(const Component* component, int y, unsigned char* out) {
  int across = component->across, down = component->down, width = component->width, row = y / down;
  int lower = y % down > 0, beside = row + (lower ? 1 : -1);
  if (beside < 0) beside = 0;
  if (beside >= component->height) beside = component->height - 1;
  const unsigned char* near = component->samples + (size_t)row * component->stride;
  const unsigned char* far = component->samples + (size_t)beside * component->stride;
  int smooth = width > 2; /* narrower ones are repeated */
  if (across == 1 && down == 2)
    twice_down(near, far, width, lower, out);
  else if (across == 2 && down == 1 && smooth)
    twice_across(near, width, out);
  else if (across == 2 && down == 2 && smooth)
    twice_both(near, far, width, out);
  else if (across == 1)
    memcpy(out, near, (size_t)width);
  else
    for (int x = 0; x < width * across; ++x) out[x] = near[x / across];
}

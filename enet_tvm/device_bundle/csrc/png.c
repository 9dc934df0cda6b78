#include "png.h"

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "exif.h"
#include "text.h"

/* stb_image does not always say that there was no memory. */
static int starved;

static void* grown(void* memory, size_t bytes) {
  void* more = realloc(memory, bytes);
  starved |= more == NULL;
  return more;
}

#define STBI_MALLOC(bytes) grown(NULL, bytes)
#define STBI_REALLOC grown
#define STBI_FREE free
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_SIMD
#pragma GCC diagnostic ignored "-Wunused-function" /* it declares what is defined with more of it alone */
#include <stb_image.h>

enum { SIGNATURE = 8, HEAD = 8, CHECK = 4, GREY = 0, GREY_ALPHA = 4 };

/* What of a file's chunks its pixels do not tell. */
typedef struct {
  uint32_t width, height, frames; /* of an animation: 1 of any other picture */
  int depth, colour, exif, xmp;
} Facts;

int is_png(const unsigned char* data, size_t length) {
  return length >= SIGNATURE && memcmp(data, "\x89PNG\r\n\x1a\n", SIGNATURE) == 0;
}

static uint32_t big_endian(const unsigned char* p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* RFC 2083, 15: the checksum of a chunk's kind and content. */
static uint32_t checksum(const unsigned char* data, size_t length) {
  static uint32_t table[256];
  for (uint32_t i = 0; i < 256 && table[255] == 0; ++i) {
    table[i] = i;
    for (int bit = 0; bit < 8; ++bit) table[i] = table[i] >> 1 ^ (table[i] & 1 ? UINT32_C(0xEDB88320) : 0);
  }
  uint32_t sum = UINT32_MAX;
  for (size_t i = 0; i < length; ++i) sum = sum >> 8 ^ table[(sum ^ data[i]) & 255];
  return ~sum;
}

/* Look at every chunk; NULL, or what is wrong. */
static const char* read_chunks(const unsigned char* data, size_t length, Facts* facts) {
  static const char xmp[] = "XML:com.adobe.xmp\0\0\0\0"; /* not compressed, of no language and no other name */
  *facts = (Facts){.frames = 1};
  if (!is_png(data, length)) return "it does not begin as one";
  for (size_t at = SIGNATURE; length - at >= HEAD + CHECK;) {
    size_t bytes = big_endian(data + at);
    const unsigned char *kind = data + at + 4, *content = data + at + HEAD;
    if (bytes > length - at - HEAD - CHECK) return "it ends too early";
    if (checksum(kind, 4 + bytes) != big_endian(content + bytes)) return "a checksum differs";
    if (memcmp(kind, "IHDR", 4) == 0 && bytes == 13) {
      facts->width = big_endian(content);
      facts->height = big_endian(content + 4);
      facts->depth = content[8];
      facts->colour = content[9];
    }
    if (memcmp(kind, "acTL", 4) == 0 && bytes == 8) facts->frames = big_endian(content);
    if (memcmp(kind, "eXIf", 4) == 0) facts->exif = exif_orientation(content, bytes);
    if (memcmp(kind, "iTXt", 4) == 0 && bytes >= sizeof xmp && memcmp(content, xmp, sizeof xmp) == 0)
      facts->xmp = xmp_orientation(content, bytes);
    if (memcmp(kind, "IEND", 4) == 0) return facts->width > 0 ? NULL : "it has no header";
    at += HEAD + bytes + CHECK;
  }
  return "it ends too early";
}

/* A channel on black: Pillow's alpha_composite over an opaque background, with 7 bits of fraction. */
static unsigned char on_black(int value, int alpha) {
  uint32_t scaled = ((uint32_t)value * (uint32_t)alpha << 7) + (0x80 << 7);
  return (unsigned char)((((scaled >> 8) + scaled) >> 8) >> 7);
}

/* Bring samples of 8 or 16 bits, of which the upper eight count, and of 1 to 4 channels to RGB. */
static void to_rgb(const void* samples, int channels, int wide, int opaque, Picture* picture) {
  const unsigned char* narrow = samples;
  const uint16_t* both = samples;
  size_t count = (size_t)picture->width * (size_t)picture->height;
  unsigned char* out = picture->pixels;
  int colours = channels >= 3 ? 3 : 1, alpha = channels == 2 || channels == 4;
  for (size_t i = 0; i < count; ++i, out += 3) {
    unsigned char pixel[4];
    for (int c = 0; c < channels; ++c)
      pixel[c] = wide ? (unsigned char)(both[i * (size_t)channels + (size_t)c] >> 8) : narrow[i * (size_t)channels + (size_t)c];
    for (int c = 0; c < 3; ++c) {
      unsigned char value = pixel[colours == 3 ? c : 0];
      out[c] = alpha && !opaque ? on_black(value, pixel[channels - 1]) : value;
    }
  }
}

int decode_png(const unsigned char* data, size_t length, const char* name, Picture* picture, int* orientation, char* why,
               size_t size) {
  Facts facts;
  starved = 0;
  *picture = (Picture){0, 0, NULL};
  if (length > INT_MAX) return fail(why, size, "there is no memory to read %s", name);
  const char* wrong = read_chunks(data, length, &facts);
  if (wrong == NULL && facts.frames > 1)
    return fail(why, size, "%s holds %u frames, and one picture is wanted; save each that is meant to a file of its own", name,
                facts.frames);
  if (wrong == NULL) {
    stbi__context source;
    stbi__result_info info = {.bits_per_channel = 8};
    int width = 0, height = 0, channels = 0;
    if (make_picture(picture, facts.width, facts.height, name, why, size)) return -1;
    stbi__g_failure_reason = NULL;
    stbi__start_mem(&source, data, (int)length);
    void* samples = stbi__png_load(&source, &width, &height, &channels, 0, &info);
    if (samples == NULL) wrong = stbi_failure_reason() != NULL ? stbi_failure_reason() : "its pixels are not whole";
    else if (width != picture->width || height != picture->height) wrong = "it has two sizes";
    /* Of 16-bit grey Python takes no heed of a value that stands for nothing. */
    else to_rgb(samples, channels, info.bits_per_channel == 16, facts.depth == 16 && facts.colour == GREY, picture);
    free(samples);
  }
  if (wrong != NULL) {
    free_picture(picture);
    if (starved) return fail(why, size, "there is no memory to read %s", name);
    return fail(why, size, "%s cannot be read as a PNG picture (%s); is it damaged?", name, wrong);
  }
  *orientation = facts.exif ? facts.exif : facts.xmp;
  return 0;
}

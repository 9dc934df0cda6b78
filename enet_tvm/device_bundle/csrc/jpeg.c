#include "jpeg.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "exif.h"
#include "jpeg_idct.h"
#include "jpeg_tables.h"
#include "jpeg_upsample.h"
#include "text.h"

/* Of stb_image, what finds the coefficients and puts blocks in their places. Samples and pixels are made by the files beside
   this one, because its own differ from libjpeg's in the last bits, and Python's pictures are libjpeg's. */
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_JPEG
#define STBI_NO_STDIO
#define STBI_NO_SIMD
#define STBI_MALLOC(bytes) calloc(1, bytes) /* what a damaged file leaves out is not what lay in memory before */
#define STBI_REALLOC realloc
#define STBI_FREE free
#pragma GCC diagnostic ignored "-Wunused-function" /* it declares what is defined with more of it alone */
#include <stb_image.h>

enum { SOI = 0xD8, EOI = 0xD9, SOS = 0xDA, APP1 = 0xE1, MOST_COMPONENTS = 4 };

int is_jpeg(const unsigned char* data, size_t length) { return length >= 3 && memcmp(data, "\xFF\xD8\xFF", 3) == 0; }

/* What the segments before the pixels say of the orientation: EXIF's first, or else XMP's. */
static int orientation_of(const unsigned char* data, size_t length) {
  static const char exif[] = "Exif\0", xmp[] = "http://ns.adobe.com/xap/1.0/"; /* with the NUL behind each */
  int of_exif = 0, of_xmp = 0;
  for (size_t at = 2; length - at >= 4 && data[at] == 0xFF;) {
    unsigned char kind = data[at + 1];
    if (kind == 0xFF) { /* a byte to fill */
      ++at;
      continue;
    }
    if (kind == SOS || kind == EOI) break;
    size_t bytes = (size_t)data[at + 2] << 8 | data[at + 3];
    if (bytes < 2 || bytes > length - at - 2) break;
    const unsigned char* content = data + at + 4;
    size_t room = bytes - 2;
    if (kind == APP1 && !of_exif && room > sizeof exif && memcmp(content, exif, sizeof exif) == 0)
      of_exif = exif_orientation(content + sizeof exif, room - sizeof exif);
    if (kind == APP1 && !of_xmp && room > sizeof xmp && memcmp(content, xmp, sizeof xmp) == 0)
      of_xmp = xmp_orientation(content + sizeof xmp, room - sizeof xmp);
    at += 2 + bytes;
  }
  return of_exif ? of_exif : of_xmp;
}

static void take_usual_tables(stbi__jpeg* jpeg) {
  for (int i = 0; i < 2; ++i) {
    int lengths[16];
    memcpy(lengths, usual_dc[i].lengths, sizeof lengths);
    stbi__build_huffman(&jpeg->huff_dc[i], lengths);
    memcpy(jpeg->huff_dc[i].values, usual_dc[i].symbols, 12);
    memcpy(lengths, usual_ac[i].lengths, sizeof lengths);
    stbi__build_huffman(&jpeg->huff_ac[i], lengths);
    memcpy(jpeg->huff_ac[i].values, usual_ac[i].symbols, sizeof usual_ac[i].symbols);
    stbi__build_fast_ac(jpeg->fast_ac[i], &jpeg->huff_ac[i]);
  }
}

static unsigned char clip(int value) { return value < 0 ? 0 : value > 255 ? 255 : (unsigned char)value; }

/* JFIF's colours, with 16 bits of fraction. */
static void rgb_of(int y, int cb, int cr, unsigned char* out) {
  const int half = 1 << 15;
  cb -= 128;
  cr -= 128;
  out[0] = clip(y + ((91881 * cr + half) >> 16));
  out[1] = clip(y + ((-22554 * cb - 46802 * cr + half) >> 16));
  out[2] = clip(y + ((116130 * cb + half) >> 16));
}

/* Light that ink lets through black ink: their product over 255, as Pillow rounds it. Adobe writes ink inverted. */
static unsigned char through(int ink, int black) {
  int product = ink * (255 - black) + 128;
  return clip(255 - black - (((product >> 8) + product) >> 8));
}

static void colour_row(const stbi__jpeg* jpeg, unsigned char* const rows[MOST_COMPONENTS], int width, unsigned char* out) {
  int count = jpeg->s->img_n;
  int adobe = jpeg->app14_color_transform; /* -1 where nothing is said */
  int plain = count == 3 && !jpeg->jfif && (adobe >= 0 ? adobe == 0 : jpeg->rgb == 3);
  for (int x = 0; x < width; ++x, out += 3) {
    if (count == 1) {
      out[0] = out[1] = out[2] = rows[0][x];
    } else if (plain || (count == 4 && adobe != 2)) {
      for (int c = 0; c < 3; ++c) out[c] = rows[c][x];
    } else {
      rgb_of(rows[0][x], rows[1][x], rows[2][x], out);
      for (int c = 0; c < 3 && count == 4; ++c) out[c] = 255 - out[c];
    }
    for (int c = 0; c < 3 && count == 4; ++c) out[c] = through(255 - out[c], 255 - rows[3][x]);
  }
}

static int make_pixels(const stbi__jpeg* jpeg, Picture* picture) {
  Component components[MOST_COMPONENTS];
  unsigned char* rows[MOST_COMPONENTS];
  int count = jpeg->s->img_n;
  size_t room = (size_t)picture->width + 4; /* a component may end behind the picture */
  unsigned char* memory = malloc(room * (size_t)count);
  if (memory == NULL) return -1;
  for (int c = 0; c < count; ++c) {
    const int across = jpeg->img_h_max / jpeg->img_comp[c].h, down = jpeg->img_v_max / jpeg->img_comp[c].v;
    components[c] = (Component){jpeg->img_comp[c].data, (size_t)jpeg->img_comp[c].w2, jpeg->img_comp[c].x,
                                jpeg->img_comp[c].y,    across,                       down};
    rows[c] = memory + room * (size_t)c;
  }
  for (int y = 0; y < picture->height; ++y) {
    for (int c = 0; c < count; ++c) upsample_row(&components[c], y, rows[c]);
    colour_row(jpeg, rows, picture->width, picture->pixels + (size_t)y * (size_t)picture->width * 3);
  }
  free(memory);
  return 0;
}

/* What stb_image found to be wrong; it does not always say. */
static const char* reason(void) {
  const char* said = stbi_failure_reason();
  return said != NULL ? said : "a marker that makes no sense";
}

/* Decode into planes; NULL, or what is wrong. */
static const char* decode(stbi__jpeg* jpeg, stbi__context* source, const unsigned char* data, size_t length) {
  stbi__start_mem(source, data, (int)length);
  jpeg->s = source;
  if (!stbi__decode_jpeg_image(jpeg)) return reason();
  /* What ends without a mark of its end was cut, and is grey from there on. */
  const unsigned char* end = source->img_buffer; /* behind the data, where a segment says that it goes on there */
  return end <= data + length && end - data >= 2 && end[-2] == 0xFF && end[-1] == EOI ? NULL : "it ends too early";
}

int decode_jpeg(const unsigned char* data, size_t length, const char* name, Picture* picture, int* orientation, char* why,
                size_t size) {
  stbi__context source;
  stbi__jpeg* jpeg = calloc(1, sizeof *jpeg);
  *picture = (Picture){0, 0, NULL};
  if (jpeg == NULL || length > INT_MAX) {
    free(jpeg);
    return fail(why, size, "there is no memory to read %s", name);
  }
  stbi__g_failure_reason = NULL;
  stbi__setup_jpeg(jpeg);
  jpeg->idct_block_kernel = jpeg_idct;
  const char* wrong = NULL;
  int result = 0;
  stbi__start_mem(&source, data, (int)length);
  jpeg->s = &source;
  if (!stbi__decode_jpeg_header(jpeg, STBI__SCAN_header))
    wrong = reason();
  else
    result = make_picture(picture, source.img_x, source.img_y, name, why, size);
  if (result == 0 && wrong == NULL) {
    source.img_n = 0; /* so that cleaning up is safe from here on */
    take_usual_tables(jpeg);
    wrong = decode(jpeg, &source, data, length);
    if (wrong == NULL && ((int)source.img_x != picture->width || (int)source.img_y != picture->height)) wrong = "it has two sizes";
    if (wrong == NULL && make_pixels(jpeg, picture)) result = fail(why, size, "there is no memory to read %s", name);
    stbi__cleanup_jpeg(jpeg);
  }
  free(jpeg);
  if (wrong != NULL && strcmp(wrong, "outofmem") == 0)
    result = fail(why, size, "there is no memory to read %s", name);
  else if (wrong != NULL)
    result = fail(why, size, "%s cannot be read as a JPEG picture (%s); is it damaged?", name, wrong);
  if (result)
    free_picture(picture);
  else
    *orientation = orientation_of(data, length);
  return result;
}

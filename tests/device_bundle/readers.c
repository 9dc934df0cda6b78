/* Everything in the board's programs that reads what others wrote, without TVM: for its verdicts, and to be fuzzed.

     readers verdicts manifest ARTIFACT    takes the names of files from the standard input, puts each in the place of the
                                           artifact's manifest, and says in a line what the loader says: "accepted", or why not
     readers verdicts npy                  the same for arrays of 1x3x16x24
     readers pictures                      takes lines "FILE OUT WIDTH HEIGHT", reads each picture, brings it to that size, or
                                           with 0 0 leaves it, and writes it to OUT; says "accepted", or why not
     readers frames                        takes lines "FILE OUT WIDTH HEIGHT STRIDE BT709 FULL" of YUYV, and does the same
     readers labels                        takes lines "WIDTH HEIGHT NEW_WIDTH NEW_HEIGHT OUT", and brings a label map, whose
                                           labels are x + 7 y, to the new size
     readers verdicts address|host|name    the same for the lines themselves; what an address or a host means is said, too
     readers verdicts features             the features of all processors in files such as /proc/cpuinfo
     readers hash FILE...                  SHA-256, a line each
     readers fuzz KIND SEED COUNT SECONDS FOLDER FILE...
                                           reads COUNT damaged copies of the files, or fewer in so many seconds, which depend on the
                                           seed alone, and says how many were accepted. What ends it is kept in FOLDER/killer. KIND
                                           is also sealed-png: with checksums that fit what was damaged */
#define _GNU_SOURCE
#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "address.h"
#include "facts.h"
#include "files.h"
#include "greeting.h"
#include "image_output.h"
#include "jpeg.h"
#include "json.h"
#include "manifest.h"
#include "npy.h"
#include "picture_file.h"
#include "png.h"
#include "ppm.h"
#include "resample.h"
#include "sha256.h"
#include "text.h"
#include "tracker.h"
#include "upload_name.h"
#include "yuyv.h"

enum { WHY = 1024, MOST = 1 << 20 };

static const int64_t shape[4] = {1, 3, 16, 24};

typedef struct {
  unsigned char* data;
  size_t length;
} Bytes;

static _Noreturn void die(const char* what) {
  fprintf(stderr, "readers: %s\n", what);
  exit(3);
}

static Bytes read_bytes(const char* path) {
  FILE* file = fopen(path, "rb");
  Bytes bytes = {malloc(MOST + 1), 0};
  if (file == NULL || bytes.data == NULL) die(path);
  bytes.length = fread(bytes.data, 1, MOST, file);
  fclose(file);
  return bytes;
}

static void write_bytes(const char* path, const void* data, size_t length) {
  FILE* file = fopen(path, "wb");
  if (file == NULL || fwrite(data, 1, length, file) != length || fclose(file)) die(path);
}

static void check_reason(int result, const char* why) {
  if (result != 0 && result != -1) die("a reader returned neither 0 nor -1");
  if (result == -1 && (*why == '\0' || strlen(why) >= WHY)) die("a reader gave no reason");
}

static int manifest_of(const char* artifact, char* why) {
  Manifest manifest;
  int result = read_manifest(artifact, &manifest, why, WHY);
  check_reason(result, why);
  if (result) return result;
  size_t product = 4;
  for (int i = 0; i < 4; ++i) {
    if (manifest.input[i] < 1 || manifest.input[i] > 1 << 20 || manifest.output[i] < 1) die("an extent out of bounds");
    product *= (size_t)manifest.input[i];
  }
  if (product != manifest.input_bytes || manifest.output_bytes < 1) die("a product that is not one");
  return 0;
}

static int array_of(const char* path, char* why) {
  float* values = malloc(3 * 16 * 24 * sizeof *values); /* of its own, so that a byte too much is found */
  if (values == NULL) die("no memory");
  int result = read_npy(path, shape, values, why, WHY);
  free(values);
  check_reason(result, why);
  return result;
}

/* A picture or a camera's frame, in memory of its own, brought to the network's size. */
static int picture_of(const char* kind, Bytes bytes, char* why) {
  static const YuyvFormat format = {.width = 23, .height = 16, .stride = 50};
  static unsigned char small[16 * 24 * 3];
  Picture picture;
  int orientation = 0, result;
  unsigned char* data = malloc(bytes.length ? bytes.length : 1);
  if (data == NULL) die("no memory");
  memcpy(data, bytes.data, bytes.length);
  if (strcmp(kind, "jpeg") == 0)
    result = decode_jpeg(data, bytes.length, "it", &picture, &orientation, why, WHY);
  else if (strstr(kind, "png") != NULL)
    result = decode_png(data, bytes.length, "it", &picture, &orientation, why, WHY);
  else if (strcmp(kind, "ppm") == 0)
    result = decode_ppm(data, bytes.length, "it", &picture, why, WHY);
  else
    result = decode_yuyv(data, bytes.length, &format, "it", &picture, why, WHY);
  free(data);
  check_reason(result, why);
  if (result == 0) {
    if (orientation < 0 || orientation > 8) die("an orientation that is none");
    if (turn_upright(&picture, orientation) || resize_picture(&picture, 24, 16, small)) die("no memory");
  } else if (picture.pixels != NULL) {
    die("a picture was refused and kept");
  }
  free_picture(&picture);
  return result;
}

/* Bytes that arrive in pieces, whose sizes are in their own first bytes. */
static int greeting_of(Bytes bytes) {
  static Greeting greeting;
  char key[GREETED_KEY_ROOM];
  double seconds;
  greeting_begin(&greeting);
  for (size_t at = 0, piece, turn = 0; at < bytes.length; at += piece, ++turn) {
    size_t room = greeting.wanted - greeting.got;
    if (room == 0 || greeting.wanted > sizeof greeting.bytes - 1) die("no room for a greeting");
    piece = 1 + bytes.data[turn % bytes.length] % 16;
    if (piece > room) piece = room;
    if (piece > bytes.length - at) piece = bytes.length - at;
    memcpy(greeting.bytes + greeting.got, bytes.data + at, piece);
    int state = greeting_take(&greeting, piece);
    if (state < 0) return -1;
    if (state > 0) {
      if (greeting_parse(&greeting, key, &seconds)) return -1;
      if (!(seconds >= 0)) die("a greeting's seconds are no number");
      return key[0] ? 0 : -1;
    }
  }
  return -1;
}

static int text_of(const char* kind, Bytes bytes) {
  char host[HOST_ROOM], name[JSON_KEY_ROOM];
  int port, result = -1;
  /* A copy that ends where the text ends, so that a byte too much is found. */
  char* text = malloc(bytes.length + 1);
  if (text == NULL) die("no memory");
  memcpy(text, bytes.data, bytes.length);
  text[bytes.length] = '\0';
  if (strcmp(kind, "address") == 0) {
    result = parse_address(text, host, &port);
    if (result == 0 && (port < 1 || port > 65535)) die("a port out of bounds");
  } else if (strcmp(kind, "name") == 0) {
    result = is_upload_name(text, bytes.length) ? 0 : -1;
  } else if (strcmp(kind, "answer") == 0) {
    int success = is_success(text, bytes.length), listed = lists_key(text, bytes.length, "board:0.0123456789012345");
    result = success || listed >= 0 ? 0 : -1;
  } else if (strcmp(kind, "json") == 0) {
    result = json_check(text, bytes.length);
    const char* value = text + strspn(text, " \t\r\n");
    if (result == 0) {
      json_find(value, "target.name");
      for (const char* p = json_member(value, NULL, name); p != NULL; p = json_member(value, p, name)) json_count(p);
    }
    make_printable(text);
    for (const char* p = text; *p; ++p)
      if (iscntrl((unsigned char)*p)) die("a control character is left");
  } else {
    die("no such kind");
  }
  free(text);
  return result;
}

static int is_picture(const char* kind) {
  return strcmp(kind, "jpeg") == 0 || strstr(kind, "png") != NULL || strcmp(kind, "ppm") == 0 || strcmp(kind, "yuyv") == 0;
}

static int read_one(const char* kind, const char* folder, Bytes bytes) {
  char path[1024], why[WHY] = "";
  int manifest = strcmp(kind, "manifest") == 0;
  if (strcmp(kind, "greeting") == 0) return greeting_of(bytes);
  if (is_picture(kind)) return picture_of(kind, bytes, why);
  if (!manifest && strcmp(kind, "npy") != 0) return text_of(kind, bytes);
  snprintf(path, sizeof path, "%s/%s", folder, manifest ? "manifest.json" : "array");
  write_bytes(path, bytes.data, bytes.length);
  return manifest ? manifest_of(folder, why) : array_of(path, why);
}

/* ---- damage ---- */

static uint64_t state;

static uint64_t random_below(uint64_t bound) { /* xorshift64* */
  state ^= state >> 12;
  state ^= state << 25;
  state ^= state >> 27;
  return bound ? (state * UINT64_C(2685821657736338717) >> 16) % bound : 0;
}

static void insert(Bytes* bytes, size_t at, const void* data, size_t length) {
  if (bytes->length + length > MOST) return;
  memmove(bytes->data + at + length, bytes->data + at, bytes->length - at);
  memmove(bytes->data + at, data, length);
  bytes->length += length;
}

static void damage(Bytes* bytes) {
  static const char* const words[] = {"\"", "\\", "\\u0000", "\\ud800", "[[[[[[[[[[[[[[[[", "{\"", "}", "]", ",", ":", "null", "true",
                                      "NaN", "-", "-1", "0", "1.5", "1e999", "17592186044416", "1048576", "9223372036854775807",
                                      "18446744073709551616", "(", ")", "'<f8'", "\xff", "\xed\xa0\x80", "\xc2\x9b", "\xef\xbb\xbf",
                                      "..", "/", "#", "\n", "client:", "-timeout=", "1e-400", "nan", "[::1]", "%", "\x1b[31m"};
  unsigned char copy[64];
  size_t at = random_below(bytes->length + 1), count = random_below(48) + 1;
  const char* word = words[random_below(sizeof words / sizeof *words)];
  if (count > bytes->length - at) count = bytes->length - at;
  switch (random_below(8)) {
    case 0:
      if (at < bytes->length) bytes->data[at] ^= (unsigned char)(1 << random_below(8));
      break;
    case 1:
      if (at < bytes->length) bytes->data[at] = (unsigned char)random_below(256);
      break;
    case 2:
      memmove(bytes->data + at, bytes->data + at + count, bytes->length - at - count);
      bytes->length -= count;
      break;
    case 3: insert(bytes, at, word, strlen(word)); break;
    case 4:
      memcpy(copy, bytes->data + at, count);
      insert(bytes, random_below(bytes->length + 1), copy, count);
      break;
    case 5: /* a number for another */
      while (at < bytes->length && !isdigit(bytes->data[at])) ++at;
      count = 0;
      while (at + count < bytes->length && isdigit(bytes->data[at + count])) ++count;
      memmove(bytes->data + at, bytes->data + at + count, bytes->length - at - count);
      bytes->length -= count;
      insert(bytes, at, word, strlen(word));
      break;
    case 6: /* lengths and sizes at their ends */
      for (size_t i = at; i < bytes->length && i < at + 1 + count % 4; ++i)
        bytes->data[i] = (unsigned char)"\x00\xff\x7f\x80"[random_below(4)];
      break;
    default:
      if (random_below(8) == 0) bytes->length = at;
  }
}

/* Write the checksums of a PNG picture's chunks anew, as far as there are any (RFC 2083, 15). */
static void seal(Bytes* bytes) {
  for (size_t at = 8; at + 12 <= bytes->length;) {
    unsigned char* chunk = bytes->data + at;
    size_t length = (size_t)chunk[0] << 24 | (size_t)chunk[1] << 16 | (size_t)chunk[2] << 8 | chunk[3];
    if (length > bytes->length - at - 12) return;
    uint32_t sum = UINT32_MAX;
    for (size_t i = 4; i < 8 + length; ++i) {
      sum ^= chunk[i];
      for (int bit = 0; bit < 8; ++bit) sum = sum >> 1 ^ (sum & 1 ? UINT32_C(0xEDB88320) : 0);
    }
    for (int i = 0; i < 4; ++i) chunk[8 + length + (size_t)i] = (unsigned char)(~sum >> (24 - 8 * i));
    at += 12 + length;
  }
}

/* What is being read, for who wants to read it again after it has ended the program. */
static const Bytes* read_now;
static const char* killer_folder;

void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void keep_killer(void) {
  char path[1024];
  snprintf(path, sizeof path, "%s/killer", killer_folder);
  write_bytes(path, read_now->data, read_now->length);
}

static int fuzz(const char* kind, uint64_t seed, long count, double seconds, const char* folder, int files, char** paths) {
  long accepted = 0, i = 0;
  Bytes* originals = calloc((size_t)files, sizeof *originals);
  Bytes bytes = {malloc(MOST + 1), 0};
  struct timespec begin, now;
  if (originals == NULL || bytes.data == NULL) die("no memory");
  for (int k = 0; k < files; ++k) originals[k] = read_bytes(paths[k]);
  read_now = &bytes;
  killer_folder = folder;
  if (__sanitizer_set_death_callback != NULL) __sanitizer_set_death_callback(keep_killer);
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (; i < count; ++i) {
    clock_gettime(CLOCK_MONOTONIC, &now);
    if ((double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) * 1e-9 > seconds) break;
    state = (seed * 1000003 + (uint64_t)i) * UINT64_C(0x9E3779B97F4A7C15) | 1;
    for (int j = 0; j < 8; ++j) random_below(1);
    const Bytes* original = &originals[random_below((uint64_t)files)];
    memcpy(bytes.data, original->data, original->length);
    bytes.length = original->length;
    for (uint64_t times = random_below(4) + 1; times > 0; --times) damage(&bytes);
    if (strcmp(kind, "sealed-png") == 0) seal(&bytes);
    accepted += read_one(kind, folder, bytes) == 0;
  }
  printf("%ld of %ld accepted\n", accepted, i);
  for (int k = 0; k < files; ++k) free(originals[k].data);
  free(originals);
  free(bytes.data);
  return 0;
}

static int verdicts(const char* kind, const char* artifact) {
  char line[4096], path[4200], why[WHY], host[HOST_ROOM];
  int port;
  while (fgets(line, sizeof line, stdin) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    int result = -1;
    snprintf(why, sizeof why, "no");
    if (strcmp(kind, "manifest") == 0) {
      snprintf(path, sizeof path, "%s/manifest.json", artifact);
      Bytes bytes = read_bytes(line);
      write_bytes(path, bytes.data, bytes.length);
      free(bytes.data);
      result = manifest_of(artifact, why);
    } else if (strcmp(kind, "npy") == 0) {
      result = array_of(line, why);
    } else if (strcmp(kind, "address") == 0) {
      result = parse_address(line, host, &port);
      if (result == 0) printf("%s %d ", host, port);
    } else if (strcmp(kind, "host") == 0) {
      result = parse_host(line, host);
      if (result == 0) printf("%s ", host);
    } else if (strcmp(kind, "features") == 0) {
      char words[8192];
      shared_features(line, words, sizeof words);
      printf("%s ", words);
      result = 0;
    } else if (strcmp(kind, "name") == 0) {
      result = is_upload_name(line, strlen(line)) ? 0 : -1;
    } else {
      die("no such kind");
    }
    make_printable(why);
    printf("%s\n", result == 0 ? "accepted" : why);
    fflush(stdout);
  }
  return 0;
}

/* Write a picture, at another size if one is given. */
static int show(Picture* picture, const char* out, int width, int height, char* why) {
  int result = 0;
  if (width > 0) {
    unsigned char* pixels = malloc((size_t)width * (size_t)height * 3);
    if (pixels == NULL || resize_picture(picture, width, height, pixels)) die("no memory");
    result = write_image(out, width, height, 3, pixels, why, WHY);
    free(pixels);
  } else {
    result = write_image(out, picture->width, picture->height, 3, picture->pixels, why, WHY);
  }
  free_picture(picture);
  return result;
}

static int show_labels(int width, int height, int new_width, int new_height, const char* out, char* why) {
  unsigned char *labels = malloc((size_t)width * (size_t)height), *resized = malloc((size_t)new_width * (size_t)new_height);
  if (labels == NULL || resized == NULL) die("no memory");
  for (int i = 0; i < width * height; ++i) labels[i] = (unsigned char)(i % width + 7 * (i / width));
  resize_labels(labels, width, height, new_width, new_height, resized);
  int result = write_image(out, new_width, new_height, 1, resized, why, WHY);
  free(labels);
  free(resized);
  return result;
}

static int show_lines(const char* what) {
  char line[4096], file[1024], out[1024], why[WHY];
  while (fgets(line, sizeof line, stdin) != NULL) {
    Picture picture;
    int w, h, new_w, new_h, stride, bt709, full, result = -1;
    if (strcmp(what, "labels") == 0 && sscanf(line, "%d %d %d %d %1023s", &w, &h, &new_w, &new_h, out) == 5) {
      result = show_labels(w, h, new_w, new_h, out, why);
    } else if (strcmp(what, "pictures") == 0 && sscanf(line, "%1023s %1023s %d %d", file, out, &w, &h) == 4) {
      result = read_picture(file, &picture, why, sizeof why) || show(&picture, out, w, h, why) ? -1 : 0;
    } else if (sscanf(line, "%1023s %1023s %d %d %d %d %d", file, out, &w, &h, &stride, &bt709, &full) == 7) {
      YuyvFormat format = {w, h, (size_t)stride, bt709, full};
      Bytes bytes = read_bytes(file);
      result = decode_yuyv(bytes.data, bytes.length, &format, file, &picture, why, sizeof why);
      if (result == 0) result = show(&picture, out, 0, 0, why);
      free(bytes.data);
    } else {
      die("a line that is none");
    }
    make_printable(why);
    printf("%s\n", result == 0 ? "accepted" : why);
    fflush(stdout);
  }
  return 0;
}

int main(int argc, char** argv) {
  char digits[65], why[WHY];
  if (argc >= 3 && strcmp(argv[1], "verdicts") == 0) return verdicts(argv[2], argc > 3 ? argv[3] : ".");
  if (argc == 2 && (strcmp(argv[1], "pictures") == 0 || strcmp(argv[1], "frames") == 0 || strcmp(argv[1], "labels") == 0))
    return show_lines(argv[1]);
  if (argc >= 8 && strcmp(argv[1], "fuzz") == 0)
    return fuzz(argv[2], strtoull(argv[3], NULL, 10), atol(argv[4]), atof(argv[5]), argv[6], argc - 7, argv + 7);
  if (argc >= 3 && strcmp(argv[1], "hash") == 0) {
    for (int i = 2; i < argc; ++i) puts(sha256_file(argv[i], digits, why, sizeof why) ? why : digits);
    return 0;
  }
  die("usage: see the source");
}

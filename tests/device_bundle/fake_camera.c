/* A camera for tests: preloaded into a program, it answers for one device what a V4L2 driver answers, with frames from files, and
   ends the program where that does what a driver does not allow. The environment names the device, FAKE_CAMERA, and a script,
   FAKE_CAMERA_SCRIPT, of lines:

     period MS                          milliseconds from frame to frame (10)
     format CODE WxH...                 a format and its sizes, such as: format MJPG 64x48 32x24
     range CODE WxH WxH STEP            a format of any size between two
     stride BYTES | full | bt709        of rows of YUYV; what is said of its colours
     output | unstreamed | busy         it takes pictures rather than gives them; it cannot stream; another program has it
     frame FILE                         a frame
     broken FILE                        a frame that the driver says is damaged
     miss                               a frame that the driver loses
     unplug                             the camera is gone
     again                              begin with the first frame again; without it, nothing comes after the last */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { BUFFERS = 8, FORMATS = 8, SIZES = 8, EVENTS = 256, ROOM = 1 << 20, CAPTURE = V4L2_BUF_TYPE_VIDEO_CAPTURE };

typedef enum { FRAME, BROKEN, MISS, UNPLUG, AGAIN } Kind;

static struct {
  int file, period, stride, full, bt709, output, unstreamed, busy;
  struct {
    uint32_t code;
    int sizes[SIZES][2], count, step; /* with a step, the first two are the bounds */
  } formats[FORMATS];
  int format_count;
  struct {
    Kind kind;
    char path[600];
  } events[EVENTS];
  int event_count, next;
  struct v4l2_pix_format chosen; /* all zeros until S_FMT */
  struct {
    unsigned char* memory;
    enum { FREE, QUEUED, FILLED } state;
    uint32_t used, sequence, flags;
    struct timeval taken;
  } buffers[BUFFERS];
  int buffer_count, streaming, gone;
  int filled[BUFFERS], filled_count; /* in order */
  uint32_t sequence;
} camera = {.file = -1};

static void misuse(const char* what) {
  fprintf(stderr, "fake camera: %s\n", what);
  abort();
}

static uint32_t code_of(const char* name) {
  return v4l2_fourcc((uint32_t)name[0], (uint32_t)name[1], (uint32_t)name[2], (uint32_t)name[3]);
}

static void read_format(char* rest, int range) {
  char *place = NULL, *word = strtok_r(rest, " \n", &place);
  int at = camera.format_count++;
  camera.formats[at].code = code_of(word);
  while ((word = strtok_r(NULL, " \n", &place)) != NULL) {
    int* size = camera.formats[at].sizes[camera.formats[at].count];
    if (sscanf(word, "%dx%d", &size[0], &size[1]) == 2)
      ++camera.formats[at].count;
    else
      camera.formats[at].step = atoi(word);
  }
  if (range && camera.formats[at].count != 2) misuse("a range has two ends");
}

static void read_script(void) {
  const char* path = getenv("FAKE_CAMERA_SCRIPT");
  char line[1024];
  FILE* file = path != NULL ? fopen(path, "r") : NULL;
  if (file == NULL) misuse("no script");
  camera.period = 10;
  while (fgets(line, sizeof line, file) != NULL) {
    static const char* const kinds[] = {"frame", "broken", "miss", "unplug", "again"};
    char word[32] = "", rest[600] = "";
    if (sscanf(line, "%31s %599[^\n]", word, rest) < 1) continue;
    if (strcmp(word, "format") == 0 || strcmp(word, "range") == 0) read_format(rest, word[0] == 'r');
    else if (strcmp(word, "period") == 0) camera.period = atoi(rest);
    else if (strcmp(word, "stride") == 0) camera.stride = atoi(rest);
    else if (strcmp(word, "full") == 0) camera.full = 1;
    else if (strcmp(word, "bt709") == 0) camera.bt709 = 1;
    else if (strcmp(word, "output") == 0) camera.output = 1;
    else if (strcmp(word, "unstreamed") == 0) camera.unstreamed = 1;
    else if (strcmp(word, "busy") == 0) camera.busy = 1;
    else {
      int kind = 0;
      while (kind < 5 && strcmp(word, kinds[kind])) ++kind;
      if (kind == 5) misuse("a line that is none");
      camera.events[camera.event_count].kind = (Kind)kind;
      strcpy(camera.events[camera.event_count++].path, rest);
    }
  }
  fclose(file);
}

static void fill(int index, Kind kind, const char* path) {
  struct timespec now;
  int file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
  ssize_t got = file < 0 ? -1 : read(file, camera.buffers[index].memory, ROOM);
  if (got < 0) misuse(path);
  syscall(SYS_close, file);
  clock_gettime(CLOCK_MONOTONIC, &now);
  camera.buffers[index].state = FILLED;
  camera.buffers[index].used = (uint32_t)got;
  camera.buffers[index].sequence = camera.sequence;
  camera.buffers[index].flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC | (kind == BROKEN ? V4L2_BUF_FLAG_ERROR : 0);
  camera.buffers[index].taken = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
  camera.filled[camera.filled_count++] = index;
}

/* Do what has happened since the last time. */
static void advance(void) {
  uint64_t passed = 0;
  if (read(camera.file, &passed, sizeof passed) != sizeof passed) return;
  for (; passed > 0 && !camera.gone && camera.next < camera.event_count; --passed) {
    if (camera.events[camera.next].kind == AGAIN) camera.next = 0;
    Kind kind = camera.events[camera.next].kind;
    const char* path = camera.events[camera.next++].path;
    if (kind == UNPLUG) {
      camera.gone = 1;
      return;
    }
    int free = 0;
    while (free < camera.buffer_count && camera.buffers[free].state != QUEUED) ++free;
    if (kind != MISS && free < camera.buffer_count) fill(free, kind, path);
    ++camera.sequence; /* lost or not */
  }
}

static int refuse(int reason) {
  errno = reason;
  return -1;
}

static int capability(struct v4l2_capability* about) {
  memset(about, 0, sizeof *about);
  strcpy((char*)about->card, "Fake camera");
  about->device_caps = camera.output ? V4L2_CAP_VIDEO_OUTPUT : V4L2_CAP_VIDEO_CAPTURE;
  if (!camera.unstreamed) about->device_caps |= V4L2_CAP_STREAMING;
  about->capabilities = about->device_caps | V4L2_CAP_DEVICE_CAPS | V4L2_CAP_VIDEO_CAPTURE; /* of all its devices */
  return 0;
}

static int sizes_of(struct v4l2_frmsizeenum* asked) {
  for (int i = 0; i < camera.format_count; ++i) {
    if (camera.formats[i].code != asked->pixel_format) continue;
    int(*sizes)[2] = camera.formats[i].sizes;
    if (camera.formats[i].step && asked->index == 0) {
      uint32_t step = (uint32_t)camera.formats[i].step;
      asked->type = V4L2_FRMSIZE_TYPE_STEPWISE;
      asked->stepwise = (struct v4l2_frmsize_stepwise){(uint32_t)sizes[0][0], (uint32_t)sizes[1][0], step,
                                                       (uint32_t)sizes[0][1], (uint32_t)sizes[1][1], step};
      return 0;
    }
    if (camera.formats[i].step || asked->index >= (uint32_t)camera.formats[i].count) break;
    asked->type = V4L2_FRMSIZE_TYPE_DISCRETE;
    asked->discrete = (struct v4l2_frmsize_discrete){(uint32_t)sizes[asked->index][0], (uint32_t)sizes[asked->index][1]};
    return 0;
  }
  return refuse(EINVAL);
}

/* As drivers do, take the nearest of the format's sizes. */
static int set_format(struct v4l2_format* format) {
  struct v4l2_pix_format* picture = &format->fmt.pix;
  if (format->type != CAPTURE) misuse("another type of buffer");
  if (camera.busy) return refuse(EBUSY);
  if (camera.buffer_count) misuse("a format, with buffers there");
  int at = 0;
  while (at < camera.format_count && camera.formats[at].code != picture->pixelformat) ++at;
  if (at == camera.format_count) misuse("a format that was not offered");
  long best = -1;
  uint32_t width = picture->width, height = picture->height;
  for (int i = 0; i < camera.formats[at].count && !camera.formats[at].step; ++i) {
    const int* size = camera.formats[at].sizes[i];
    long away = labs((long)size[0] - (long)width) + labs((long)size[1] - (long)height);
    if (best >= 0 && away >= best) continue;
    best = away;
    picture->width = (uint32_t)size[0];
    picture->height = (uint32_t)size[1];
  }
  int plain = picture->pixelformat == V4L2_PIX_FMT_YUYV;
  picture->bytesperline = plain ? (camera.stride ? (uint32_t)camera.stride : picture->width * 2) : 0;
  picture->sizeimage = ROOM;
  picture->colorspace = V4L2_COLORSPACE_SRGB;
  picture->quantization = camera.full ? V4L2_QUANTIZATION_FULL_RANGE : V4L2_QUANTIZATION_DEFAULT;
  picture->ycbcr_enc = camera.bt709 ? V4L2_YCBCR_ENC_709 : V4L2_YCBCR_ENC_DEFAULT;
  camera.chosen = *picture;
  return 0;
}

static int request_buffers(struct v4l2_requestbuffers* request) {
  if (request->type != CAPTURE || request->memory != V4L2_MEMORY_MMAP) misuse("buffers of another kind");
  if (!camera.chosen.width) misuse("buffers before a format");
  if (request->count > BUFFERS) request->count = BUFFERS;
  camera.buffer_count = (int)request->count;
  for (int i = 0; i < camera.buffer_count; ++i)
    camera.buffers[i].memory = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return 0;
}

static void check_buffer(const struct v4l2_buffer* buffer) {
  if (buffer->type != CAPTURE || buffer->memory != V4L2_MEMORY_MMAP) misuse("a buffer of another kind");
  if (buffer->index >= (uint32_t)camera.buffer_count) misuse("a buffer that is not there");
}

static int take_buffer(struct v4l2_buffer* buffer) {
  if (!camera.streaming) return refuse(EINVAL);
  advance();
  if (camera.filled_count == 0) return refuse(camera.gone ? ENODEV : EAGAIN);
  int index = camera.filled[0];
  memmove(camera.filled, camera.filled + 1, sizeof *camera.filled * (size_t)--camera.filled_count);
  camera.buffers[index].state = FREE;
  buffer->index = (uint32_t)index;
  buffer->bytesused = camera.buffers[index].used;
  buffer->sequence = camera.buffers[index].sequence;
  buffer->flags = camera.buffers[index].flags;
  buffer->timestamp = camera.buffers[index].taken;
  return 0;
}

static int stream(int on) {
  struct itimerspec times = {{0, camera.period * 1000000L}, {0, camera.period * 1000000L}};
  if (on && camera.buffer_count == 0) misuse("streaming without buffers");
  if (on && timerfd_settime(camera.file, 0, &times, NULL)) misuse("no timer");
  camera.streaming = on;
  return 0;
}

static int answer(unsigned long request, void* argument) {
  struct v4l2_buffer* buffer = argument;
  switch (request) {
    case VIDIOC_QUERYCAP: return capability(argument);
    case VIDIOC_ENUM_FMT: {
      struct v4l2_fmtdesc* entry = argument;
      if (entry->type != CAPTURE || entry->index >= (uint32_t)camera.format_count) return refuse(EINVAL);
      entry->pixelformat = camera.formats[entry->index].code;
      return 0;
    }
    case VIDIOC_ENUM_FRAMESIZES: return sizes_of(argument);
    case VIDIOC_S_FMT: return set_format(argument);
    case VIDIOC_REQBUFS: return request_buffers(argument);
    case VIDIOC_QUERYBUF:
      check_buffer(buffer);
      buffer->length = ROOM;
      buffer->m.offset = buffer->index * ROOM;
      return 0;
    case VIDIOC_QBUF:
      check_buffer(buffer);
      if (camera.gone) return refuse(ENODEV);
      if (camera.buffers[buffer->index].state != FREE) misuse("a buffer that is queued already");
      camera.buffers[buffer->index].state = QUEUED;
      return 0;
    case VIDIOC_DQBUF: return take_buffer(argument);
    case VIDIOC_STREAMON: return stream(1);
    case VIDIOC_STREAMOFF: return stream(0);
    default: return refuse(ENOTTY);
  }
}

/* ---- what takes the place of the C library's functions: two threads may be in them ---- */

static volatile int busy;

static void lock(void) {
  while (__atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE)) usleep(10);
}

static void unlock(void) { __atomic_store_n(&busy, 0, __ATOMIC_RELEASE); }

int open(const char* path, int flags, ...) {
  const char* device = getenv("FAKE_CAMERA");
  va_list arguments;
  va_start(arguments, flags);
  int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, int) : 0;
  va_end(arguments);
  if (device == NULL || strcmp(path, device)) return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
  if ((flags & O_ACCMODE) != O_RDWR || !(flags & O_NONBLOCK)) misuse("opened for something else");
  if (camera.file >= 0) return refuse(EBUSY);
  read_script();
  return camera.file = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
}

int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, int) : 0;
  va_end(arguments);
  return open(path, flags, mode);
}

int ioctl(int file, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (file < 0 || file != camera.file) return (int)syscall(SYS_ioctl, file, request, argument);
  lock();
  int result = answer(request, argument);
  unlock();
  return result;
}

void* mmap(void* where, size_t length, int protection, int flags, int file, off_t offset) {
  if (file >= 0 && file == camera.file) {
    size_t index = (size_t)offset / ROOM;
    if (length != ROOM || (size_t)offset % ROOM || index >= (size_t)camera.buffer_count || !(flags & MAP_SHARED))
      misuse("a map that is none");
    return camera.buffers[index].memory;
  }
  return (void*)syscall(SYS_mmap, where, length, protection, flags, file, offset);
}

int poll(struct pollfd* files, nfds_t count, int timeout) {
  struct timespec wait = {timeout / 1000, timeout % 1000 * 1000000L};
  if (count == 1 && files->fd >= 0 && files->fd == camera.file) {
    if (!camera.streaming) misuse("waiting without streaming");
    lock();
    advance();
    int ready = camera.filled_count > 0, gone = camera.gone;
    unlock();
    files->revents = (short)(gone ? POLLIN | POLLERR | POLLHUP : ready ? POLLIN : 0);
    if (ready || gone) return 1;
  }
  return (int)syscall(SYS_ppoll, files, count, timeout < 0 ? NULL : &wait, NULL, 0);
}

int close(int file) {
  if (file >= 0 && file == camera.file) {
    if (camera.streaming) misuse("closed while streaming");
    camera.file = -1;
  }
  return (int)syscall(SYS_close, file);
}

#define _GNU_SOURCE
#include "camera.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "figures.h"
#include "jpeg.h"
#include "text.h"

enum { CAPTURE = V4L2_BUF_TYPE_VIDEO_CAPTURE, MOST_FORMATS = 32, MOST_SIZES = 64, PLAIN_PIXELS = 640 * 480 };

/* The formats that are read. */
static const struct {
  uint32_t code;
  int jpeg;
} readable[] = {{V4L2_PIX_FMT_MJPEG, 1}, {V4L2_PIX_FMT_JPEG, 1}, {V4L2_PIX_FMT_YUYV, 0}};

static int control(int file, unsigned long request, void* argument) {
  int result;
  do result = ioctl(file, request, argument);
  while (result < 0 && errno == EINTR);
  return result;
}

static void name_of_code(uint32_t code, char name[5]) {
  for (int i = 0; i < 4; ++i) name[i] = (char)(code >> 8 * i);
  name[4] = '\0';
}

/* Write which cameras there are, for who named another. */
static void list_cameras(char* out, size_t size) {
  glob_t found;
  size_t used = 0;
  if (glob("/dev/video*", 0, NULL, &found) || found.gl_pathc == 0) {
    snprintf(out, size, "this machine has no camera; plug one in");
    return;
  }
  for (size_t i = 0; i < found.gl_pathc && used < size; ++i)
    used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "this machine has ", found.gl_pathv[i]);
  globfree(&found);
}

/* Open the device and see that it is a camera that streams. */
static int open_device(Camera* camera, char* why, size_t size) {
  struct v4l2_capability about = {0};
  char others[400];
  camera->file = open(camera->name, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (camera->file < 0 && (errno == ENOENT || errno == ENODEV || errno == ENXIO)) {
    list_cameras(others, sizeof others);
    return fail(why, size, "there is no camera %s; %s", camera->name, others);
  }
  if (camera->file < 0 && errno == EACCES)
    return fail(why, size, "cannot open camera %s: %s; add your user to the group video", camera->name, strerror(errno));
  if (camera->file < 0)
    return fail(why, size, "cannot open camera %s: %s; is something else using it?", camera->name, strerror(errno));
  if (control(camera->file, VIDIOC_QUERYCAP, &about)) {
    list_cameras(others, sizeof others);
    return fail(why, size, "%s is not a camera; %s", camera->name, others);
  }
  uint32_t can = about.capabilities & V4L2_CAP_DEVICE_CAPS ? about.device_caps : about.capabilities;
  if (!(can & V4L2_CAP_VIDEO_CAPTURE))
    return fail(why, size, "%s (%.32s) gives no pictures; a camera may have several devices, try the next", camera->name,
                (const char*)about.card);
  if (!(can & V4L2_CAP_STREAMING))
    return fail(why, size, "camera %s (%.32s) cannot stream, and nothing else is read", camera->name, (const char*)about.card);
  return 0;
}

/* Of the sizes that a format has, the one wanted, or the smallest that is large enough, or the largest; 0 if there is none. */
static int choose_size(int file, uint32_t code, const int wanted[2], const int least[2], int out[2]) {
  long best = 0;
  for (uint32_t i = 0; i < MOST_SIZES; ++i) {
    struct v4l2_frmsizeenum sizes = {.index = i, .pixel_format = code};
    if (control(file, VIDIOC_ENUM_FRAMESIZES, &sizes)) break;
    int width = (int)sizes.discrete.width, height = (int)sizes.discrete.height;
    if (sizes.type != V4L2_FRMSIZE_TYPE_DISCRETE) { /* any in between: what is asked for, within the bounds */
      const struct v4l2_frmsize_stepwise* range = &sizes.stepwise;
      uint32_t w = (uint32_t)(wanted[0] ? wanted[0] : least[0]), h = (uint32_t)(wanted[1] ? wanted[1] : least[1]);
      uint32_t across = range->step_width ? range->step_width : 1, down = range->step_height ? range->step_height : 1;
      w = w <= range->min_width ? range->min_width : range->min_width + (w - range->min_width + across - 1) / across * across;
      h = h <= range->min_height ? range->min_height : range->min_height + (h - range->min_height + down - 1) / down * down;
      width = (int)(w > range->max_width ? range->max_width : w);
      height = (int)(h > range->max_height ? range->max_height : h);
      i = MOST_SIZES;
    }
    if (wanted[0]) {
      if (width != wanted[0] || height != wanted[1]) continue;
    } else {
      /* Rank by pixels: those that are large enough first, the fewest of them; then the most. */
      long pixels = (long)width * height, rank = width >= least[0] && height >= least[1] ? (1L << 40) - pixels : pixels;
      if (best != 0 && rank <= best) continue;
      best = rank;
    }
    out[0] = width;
    out[1] = height;
    if (wanted[0]) return 1;
  }
  return best != 0;
}

/* Choose among the formats that the camera offers: the plain one where the bus has room for it, else JPEG. */
static int choose_format(Camera* camera, const int wanted[2], const int least[2], struct v4l2_format* format, char* why,
                         size_t size) {
  char offered[200] = "", name[5];
  size_t used = 0;
  long best = 0;
  int known = 0;
  struct v4l2_pix_format* picture = &format->fmt.pix;
  for (uint32_t i = 0; i < MOST_FORMATS; ++i) {
    struct v4l2_fmtdesc entry = {.index = i, .type = CAPTURE};
    if (control(camera->file, VIDIOC_ENUM_FMT, &entry)) break;
    name_of_code(entry.pixelformat, name);
    if (used < sizeof offered) used += (size_t)snprintf(offered + used, sizeof offered - used, "%s%s", used ? ", " : "", name);
    for (size_t k = 0; k < sizeof readable / sizeof *readable; ++k) {
      int sides[2] = {wanted[0] ? wanted[0] : least[0], wanted[0] ? wanted[1] : least[1]};
      if (readable[k].code != entry.pixelformat) continue;
      known = 1;
      /* A driver that lists no sizes is asked for what is wanted, and answers with what it has. */
      struct v4l2_frmsizeenum first = {.pixel_format = entry.pixelformat};
      int lists = control(camera->file, VIDIOC_ENUM_FRAMESIZES, &first) == 0;
      if (lists && !choose_size(camera->file, entry.pixelformat, wanted, least, sides)) continue;
      int plain = !readable[k].jpeg, small = (long)sides[0] * sides[1] <= PLAIN_PIXELS;
      int large_enough = sides[0] >= least[0] && sides[1] >= least[1];
      long rank = 1 + (plain == small) + (lists ? 2 : 0) + (large_enough ? 4 : 0);
      if (rank <= best) continue;
      best = rank;
      *picture = (struct v4l2_pix_format){.width = (uint32_t)sides[0],
                                          .height = (uint32_t)sides[1],
                                          .pixelformat = entry.pixelformat,
                                          .field = V4L2_FIELD_NONE};
      camera->jpeg = readable[k].jpeg;
    }
  }
  if (best != 0) return 0;
  if (known)
    return fail(why, size, "camera %s has no frames of %dx%d; give another --camera-size", camera->name, wanted[0], wanted[1]);
  return fail(why, size, "camera %s offers %s, and MJPEG and YUYV are read; take another camera", camera->name,
              used ? offered : "no format");
}

static int set_format(Camera* camera, const int wanted[2], const int least[2], char* why, size_t size) {
  struct v4l2_format format = {.type = CAPTURE};
  struct v4l2_pix_format* picture = &format.fmt.pix;
  if (choose_format(camera, wanted, least, &format, why, size)) return -1;
  uint32_t code = picture->pixelformat;
  if (control(camera->file, VIDIOC_S_FMT, &format))
    return fail(why, size, "camera %s %s (%s)", camera->name,
                errno == EBUSY ? "is in use by another program; end that" : "refuses its own format; take another camera",
                strerror(errno));
  if (picture->pixelformat != code) return fail(why, size, "camera %s refuses its own format; take another camera", camera->name);
  if (wanted[0] && ((int)picture->width != wanted[0] || (int)picture->height != wanted[1]))
    return fail(why, size, "camera %s has no frames of %dx%d, the nearest are %ux%u; give another --camera-size", camera->name,
                wanted[0], wanted[1], picture->width, picture->height);
  if (picture->width < 1 || picture->height < 1 || picture->width > INT16_MAX || picture->height > INT16_MAX)
    return fail(why, size, "camera %s says that its frames are %ux%u; take another camera", camera->name, picture->width,
                picture->height);
  camera->format = (YuyvFormat){
      .width = (int)picture->width,
      .height = (int)picture->height,
      .stride = picture->bytesperline ? picture->bytesperline : ((size_t)picture->width + 1) / 2 * 4,
      .bt709 = picture->ycbcr_enc == V4L2_YCBCR_ENC_709 ||
               (picture->ycbcr_enc == V4L2_YCBCR_ENC_DEFAULT && picture->colorspace == V4L2_COLORSPACE_REC709),
      .full = picture->quantization == V4L2_QUANTIZATION_FULL_RANGE ||
              (picture->quantization == V4L2_QUANTIZATION_DEFAULT && picture->colorspace == V4L2_COLORSPACE_JPEG),
  };
  return 0;
}

/* Share the camera's buffers and queue them all. */
static int share_buffers(Camera* camera, char* why, size_t size) {
  struct v4l2_requestbuffers request = {.count = CAMERA_BUFFERS, .type = CAPTURE, .memory = V4L2_MEMORY_MMAP};
  const char* step = "gives no buffers";
  if (control(camera->file, VIDIOC_REQBUFS, &request) == 0 && request.count >= 2) {
    step = "does not share its buffers";
    int wanted = request.count < CAMERA_BUFFERS ? (int)request.count : CAMERA_BUFFERS;
    for (; camera->count < wanted; ++camera->count) {
      struct v4l2_buffer buffer = {.index = (uint32_t)camera->count, .type = CAPTURE, .memory = V4L2_MEMORY_MMAP};
      if (control(camera->file, VIDIOC_QUERYBUF, &buffer)) break;
      void* memory = mmap(NULL, buffer.length, PROT_READ | PROT_WRITE, MAP_SHARED, camera->file, buffer.m.offset);
      if (memory == MAP_FAILED) break;
      camera->buffers[camera->count].memory = memory;
      camera->buffers[camera->count].length = buffer.length;
      if (control(camera->file, VIDIOC_QBUF, &buffer)) break;
    }
    if (camera->count == wanted) return 0;
  }
  return fail(why, size, "camera %s %s (%s); unplug it and plug it in again", camera->name, step, strerror(errno));
}

int open_camera(const char* device, int width, int height, int least_width, int least_height, Camera* camera, char* why,
                size_t size) {
  int wanted[2] = {width, height}, least[2] = {least_width, least_height};
  *camera = (Camera){.file = -1};
  int number = device[0] != '\0' && strspn(device, "0123456789") == strlen(device);
  if ((size_t)snprintf(camera->name, sizeof camera->name, "%s%s", number ? "/dev/video" : "", device) >= sizeof camera->name)
    return fail(why, size, "the path %s is too long for a camera", device);
  if (open_device(camera, why, size) || set_format(camera, wanted, least, why, size) || share_buffers(camera, why, size)) {
    close_camera(camera);
    return -1;
  }
  return 0;
}

int start_camera(Camera* camera, char* why, size_t size) {
  int type = CAPTURE;
  if (control(camera->file, VIDIOC_STREAMON, &type) == 0) return 0;
  return fail(why, size, "camera %s does not start (%s); unplug it and plug it in again", camera->name, strerror(errno));
}

int next_frame(Camera* camera, int timeout, CameraFrame* frame, char* why, size_t size) {
  struct pollfd wait = {.fd = camera->file, .events = POLLIN};
  struct v4l2_buffer buffer = {.type = CAPTURE, .memory = V4L2_MEMORY_MMAP};
  int ready = poll(&wait, 1, timeout);
  if (ready == 0 || (ready < 0 && errno == EINTR)) return 0;
  if (ready < 0 || control(camera->file, VIDIOC_DQBUF, &buffer)) {
    if (errno == EAGAIN && !(wait.revents & (POLLERR | POLLHUP | POLLNVAL))) return 0;
    return fail(why, size, "camera %s is gone (%s); plug it in and start again", camera->name, strerror(errno));
  }
  if (buffer.index >= (uint32_t)camera->count)
    return fail(why, size, "camera %s gave a buffer that it does not have; plug it in and start again", camera->name);
  double now = milliseconds(), taken = (double)buffer.timestamp.tv_sec * 1e3 + (double)buffer.timestamp.tv_usec * 1e-3;
  int same_clock = (buffer.flags & V4L2_BUF_FLAG_TIMESTAMP_MASK) == V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC && taken <= now;
  size_t room = camera->buffers[buffer.index].length;
  *frame = (CameraFrame){.data = camera->buffers[buffer.index].memory,
                         .length = buffer.bytesused < room ? buffer.bytesused : room,
                         .buffer = buffer.index,
                         .sequence = buffer.sequence,
                         .at = same_clock ? taken : now,
                         .damaged = (buffer.flags & V4L2_BUF_FLAG_ERROR) != 0};
  return 1;
}

void give_back(Camera* camera, const CameraFrame* frame) {
  struct v4l2_buffer buffer = {.index = frame->buffer, .type = CAPTURE, .memory = V4L2_MEMORY_MMAP};
  control(camera->file, VIDIOC_QBUF, &buffer); /* of a camera that is gone, the next frame will tell */
}

int decode_frame(const Camera* camera, const CameraFrame* frame, Picture* picture, char* why, size_t size) {
  int orientation;
  *picture = (Picture){0, 0, NULL};
  if (frame->damaged) return fail(why, size, "a frame of %s is damaged", camera->name);
  if (!camera->jpeg) return decode_yuyv(frame->data, frame->length, &camera->format, camera->name, picture, why, size);
  /* Some cameras fill the end of a frame up. */
  size_t length = frame->length;
  while (length > 2 && frame->data[length - 1] == 0) --length;
  return decode_jpeg(frame->data, length, camera->name, picture, &orientation, why, size);
}

void close_camera(Camera* camera) {
  int type = CAPTURE;
  if (camera->file < 0) return;
  control(camera->file, VIDIOC_STREAMOFF, &type);
  for (int i = 0; i < CAMERA_BUFFERS; ++i)
    if (camera->buffers[i].memory != NULL) munmap(camera->buffers[i].memory, camera->buffers[i].length);
  close(camera->file);
  *camera = (Camera){.file = -1};
}

/* A V4L2 camera that streams MJPEG or YUYV into memory that it shares with this process. */
#ifndef ENET_TVM_CAMERA_H
#define ENET_TVM_CAMERA_H

#include <stddef.h>
#include <stdint.h>

#include "picture.h"
#include "yuyv.h"

enum { CAMERA_BUFFERS = 4 };

typedef struct {
  int file;
  char name[300]; /* its device's path */
  int jpeg;       /* whether frames are JPEG pictures; else they are YUYV */
  YuyvFormat format;
  struct {
    unsigned char* memory;
    size_t length;
  } buffers[CAMERA_BUFFERS];
  int count;
} Camera;

typedef struct {
  const unsigned char* data; /* valid until the frame is given back */
  size_t length;
  unsigned buffer, sequence; /* frames that the driver dropped have numbers, too */
  double at;                 /* when it was taken, on the clock of milliseconds() */
  int damaged;               /* whether the driver says so */
} CameraFrame;

/* Open a camera, which `start_camera` lets stream. `width` and `height` are of the frames wanted; with 0, the smallest that it
   offers and that are not below `least_width` and `least_height`. -1 and a sentence in `why`. */
int open_camera(const char* device, int width, int height, int least_width, int least_height, Camera* camera, char* why,
                size_t size);

/* Let a camera stream: what it sees from here on are frames. -1 and a sentence in `why`. */
int start_camera(Camera* camera, char* why, size_t size);

/* Wait up to `timeout` milliseconds for a frame. 1 and the frame, which is to be given back; 0 if there is none; -1 and a
   sentence in `why` if the camera is gone. */
int next_frame(Camera* camera, int timeout, CameraFrame* frame, char* why, size_t size);

void give_back(Camera* camera, const CameraFrame* frame);

/* Make a picture of a frame; -1 and a sentence in `why` if it is damaged. */
int decode_frame(const Camera* camera, const CameraFrame* frame, Picture* picture, char* why, size_t size);

void close_camera(Camera* camera);

#endif

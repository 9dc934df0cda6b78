/* Files: what is read is a file and bounded, what is written appears complete or not at all. */
#ifndef ENET_TVM_FILES_H
#define ENET_TVM_FILES_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Open a file to read it; NULL and a sentence in `why` also if it is a FIFO, a device or a folder. Never waits. */
FILE* open_file(const char* path, char* why, size_t size);

/* The text of a file of at most `most` bytes, to be freed, with a zero byte behind it; NULL and a sentence in `why`. */
char* read_text(const char* path, size_t most, size_t* length, char* why, size_t size);

/* The product of `rank` extents and the size of an element; -1 if it is more than memory can hold, or an extent is below 1.
   Whatever is allocated for a shape that a file gives is computed here. */
int bytes_of(const int64_t* extents, int rank, size_t element, size_t* bytes);

/* Whether a path, which may be NULL, stands for the standard output: what is for people then goes to the standard error. */
int is_stdout(const char* path);

/* A file that is being written: under a temporary name beside `path`, or in place where `path` is no regular file. */
typedef struct {
  FILE* file;
  char path[4096], temporary[4104]; /* where it goes, and what it is called until then; empty if it is written in place */
} Output;

/* Begin to write a file; links are followed. -1 and a sentence in `why`. */
int begin_output(Output* output, const char* path, char* why, size_t size);

/* Put the file in its place if all was `good`, else remove it and take the reason from errno. -1 and a sentence in `why`. */
int finish_output(Output* output, int good, char* why, size_t size);

#endif

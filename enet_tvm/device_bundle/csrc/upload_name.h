/* Names that clients give to files of a session's folder. */
#ifndef ENET_TVM_UPLOAD_NAME_H
#define ENET_TVM_UPLOAD_NAME_H

#include <stddef.h>

/* Whether a name of `length` bytes is that of a file inside a folder: relative, without a way up, and not the folder itself. */
int is_upload_name(const char* name, size_t length);

#endif

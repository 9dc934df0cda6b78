/* SHA-256 (FIPS 180-4) of a file. */
#ifndef ENET_TVM_SHA256_H
#define ENET_TVM_SHA256_H

#include <stddef.h>

/* Write the hash as 64 hexadecimal digits; -1 and a sentence in `why` when the file cannot be read. */
int sha256_file(const char* path, char digits[65], char* why, size_t size);

#endif

/* SHA-256 (FIPS 180-4) of a file. */
#ifndef ENET_TVM_SHA256_H
#define ENET_TVM_SHA256_H

/* Write the hash as 64 hexadecimal digits; -1 and errno when the file cannot be read. */
int sha256_file(const char* path, char digits[65]);

#endif

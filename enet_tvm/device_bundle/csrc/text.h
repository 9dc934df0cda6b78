/* Texts that come from files and from the network: what of them is UTF-8, and what may be printed. */
#ifndef ENET_TVM_TEXT_H
#define ENET_TVM_TEXT_H

#include <stddef.h>

/* Write a sentence to `why`; -1, so that a reader can return it. */
__attribute__((format(printf, 3, 4))) int fail(char* why, size_t size, const char* format, ...);

/* The bytes of the UTF-8 sequence that `text` begins with; 0 if it begins with none. The end of the text ends a sequence. */
size_t utf8_length(const char* text);

/* Replace control characters, which move a terminal's cursor or end a line of a log, and bytes that are not UTF-8 by '?'. */
void make_printable(char* text);

#endif

/* Sockets: every wait has an end, and a signal ends it. */
#ifndef ENET_TVM_SOCKETS_H
#define ENET_TVM_SOCKETS_H

#include <poll.h>
#include <stddef.h>
#include <stdint.h>

/* The signals that a server minds are kept back but while it waits, so that none comes between a look and a wait. */
void mind_signals(void (*stop)(int), void (*wake)(int));
/* In a process that was forked: as it was before. */
void ignore_signals_no_more(void);

/* The seconds of a clock that nobody sets. */
double seconds_now(void);

/* Wait for any of the sockets until a deadline; -1 and EINTR if a signal came. */
int wait_until(struct pollfd* entries, int count, double deadline);

/* Send or receive all the bytes of a message by a deadline, on a socket that does not block; -1 if that is not possible. */
int send_by(int socket, const void* data, size_t bytes, double deadline);
int receive_by(int socket, void* data, size_t bytes, double deadline);

/* The same for a text with its length before it, of at most `most` bytes, to be freed; NULL if there is none. */
int send_text_by(int socket, const char* text, double deadline);
char* receive_text_by(int socket, size_t most, size_t* length, double deadline);

/* Send a few bytes on a new connection, which has room for them; -1 if that cannot be done at once. */
int send_at_once(int socket, const void* data, size_t bytes);

/* Connect to the first address of a host that answers; a socket that does not block, or -1. */
int connect_by(const char* host, int port, double deadline);

/* Listen at the first free port from `*port` to before `end`; a socket that does not block, or -1 and a sentence. */
int listen_at(const char* host, int* port, int end, char* why, size_t size);

/* Let the system end a connection whose other side has been silent for some 30 seconds: a machine without power. */
void keep_alive(int socket);

/* Let a socket block again. */
void let_block(int socket);

#endif

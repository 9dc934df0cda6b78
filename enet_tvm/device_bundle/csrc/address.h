/* Where a tracker is and what a host is called, as enet_tvm.rpc reads it: both servers mean the same. */
#ifndef ENET_TVM_ADDRESS_H
#define ENET_TVM_ADDRESS_H

enum { HOST_ROOM = 254, DEFAULT_TRACKER_PORT = 9190 };

/* Copy a host's name or address, an IPv6 one with or without brackets and without them in the copy; -1 if it is none. */
int parse_host(const char* text, char host[HOST_ROOM]);

/* Read HOST:PORT, [IPV6]:PORT, or either without a port, which is then a tracker's; -1 if it is none. */
int parse_address(const char* text, char host[HOST_ROOM], int* port);

#endif

/* Clients at the server's door. What each says first is read beside the others', so that no silent one keeps the next one
   waiting; one deadline is for the whole of it, however its bytes drip in; and there is room for so many at a time. */
#ifndef ENET_TVM_GREETING_H
#define ENET_TVM_GREETING_H

#include <poll.h>
#include <stddef.h>

enum { RPC_MAGIC = 0xff271, RPC_MISMATCH = RPC_MAGIC + 2 };
enum { GREETING_S = 3, MOST_GREETINGS = 32, LONGEST_GREETING = 4096, GREETING_HEAD = 8, GREETED_KEY_ROOM = 160 };

/* What came of a greeting: the magic number, the length of a text, and the text. */
typedef struct {
  size_t got, wanted;
  unsigned char bytes[GREETING_HEAD + LONGEST_GREETING + 1];
} Greeting;

void greeting_begin(Greeting* greeting);

/* Count bytes that were put behind the others; 1 if it is complete, 0 if more is wanted, -1 if it is none. */
int greeting_take(Greeting* greeting, size_t count);

/* The key that a client shows, "client:KEY -timeout=SECONDS", and the seconds that it wants, 0 for no limit. What is no such
   text, or too long, is an empty key, which no server waits for. -1 if it is no text at all. */
int greeting_parse(const Greeting* greeting, char key[GREETED_KEY_ROOM], double* seconds);

typedef struct {
  int socket;
  double deadline;
  Greeting greeting;
} Guest;

typedef struct {
  int listener; /* non-blocking */
  int count;
  Guest* guests[MOST_GREETINGS]; /* oldest first */
} Door;

/* A client that has said what it wants; the connection is the caller's. */
typedef struct {
  int socket;
  char key[GREETED_KEY_ROOM];
  double seconds;
} Arrival;

/* Add what to wait for to at most MOST_GREETINGS + 1 entries; how many they are. */
int door_wait_for(const Door* door, struct pollfd* entries);

/* When the first of the guests has been waited for long enough; infinity if there is none. */
double door_deadline(const Door* door);

/* Let in who stands outside. Whoever has been silent for longest makes room. */
void door_open(Door* door);

/* Read what the guests say; 1 and one that has said all, or 0 if there is none. Those that took too long are sent away. */
int door_arrival(Door* door, Arrival* arrival);

/* Close every connection. */
void door_close(Door* door);

#endif

#define _GNU_SOURCE
#include "greeting.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sockets.h"
#include "text.h"

#define BLANKS " \t\r\n\v\f"

void greeting_begin(Greeting* greeting) {
  greeting->got = 0;
  greeting->wanted = GREETING_HEAD;
}

int greeting_take(Greeting* greeting, size_t count) {
  greeting->got += count;
  if (greeting->got < greeting->wanted) return 0;
  if (greeting->got == GREETING_HEAD && greeting->wanted == GREETING_HEAD) {
    int32_t head[2];
    memcpy(head, greeting->bytes, sizeof head);
    if (head[0] != RPC_MAGIC || head[1] < 0 || head[1] > LONGEST_GREETING) return -1;
    greeting->wanted += (size_t)head[1];
    if (head[1] > 0) return 0;
  }
  greeting->bytes[greeting->got] = '\0';
  return 1;
}

static double seconds_of(const char* word) {
  char* end;
  if (*word == '\0' || word[strspn(word, "0123456789.eE+-")]) return 0; /* strtod takes more than numbers */
  double seconds = strtod(word, &end);
  return *end == '\0' && isfinite(seconds) && seconds > 0 ? seconds : 0;
}

int greeting_parse(const Greeting* greeting, char key[GREETED_KEY_ROOM], double* seconds) {
  char text[LONGEST_GREETING + 1], *rest = NULL;
  size_t length = greeting->got - GREETING_HEAD;
  key[0] = '\0';
  *seconds = 0;
  memcpy(text, greeting->bytes + GREETING_HEAD, length + 1);
  if (memchr(text, '\0', length) != NULL) return 0;
  for (size_t i = 0, step; i < length; i += step)
    if ((step = utf8_length(text + i)) == 0) return -1;
  const char* word = strtok_r(text, BLANKS, &rest);
  if (word == NULL || strncmp(word, "client:", 7) || strlen(word + 7) >= GREETED_KEY_ROOM) return 0;
  strcpy(key, word + 7);
  while ((word = strtok_r(NULL, BLANKS, &rest)) != NULL)
    if (strncmp(word, "-timeout=", 9) == 0) *seconds = seconds_of(word + 9);
  return 0;
}

/* ---- the door ---- */

int door_wait_for(const Door* door, struct pollfd* entries) {
  entries[0] = (struct pollfd){door->listener, POLLIN, 0};
  for (int i = 0; i < door->count; ++i) entries[i + 1] = (struct pollfd){door->guests[i]->socket, POLLIN, 0};
  return door->count + 1;
}

double door_deadline(const Door* door) { return door->count > 0 ? door->guests[0]->deadline : INFINITY; }

/* Forget a guest; the connection stays as it is. */
static void forget(Door* door, int i) {
  free(door->guests[i]);
  memmove(door->guests + i, door->guests + i + 1, (size_t)(--door->count - i) * sizeof *door->guests);
}

static void drop(Door* door, int i) {
  close(door->guests[i]->socket);
  forget(door, i);
}

static void make_room(Door* door) {
  int silent = 0;
  while (silent < door->count && door->guests[silent]->greeting.got > 0) ++silent;
  drop(door, silent < door->count ? silent : 0);
}

void door_open(Door* door) {
  /* So few that none of them is dropped before it has been read. */
  for (int i = 0; i < MOST_GREETINGS / 2; ++i) {
    int client = accept4(door->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
      if (door->count == 0) {
        poll(NULL, 0, 50); /* it stays in the queue, and would be tried again at once */
        return;
      }
      make_room(door);
      continue;
    }
    if (client < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return;
    if (client < 0) continue; /* that one is gone already */
    if (door->count == MOST_GREETINGS) make_room(door);
    Guest* guest = malloc(sizeof *guest);
    if (guest == NULL) {
      close(client);
      return;
    }
    guest->socket = client;
    guest->deadline = seconds_now() + GREETING_S;
    greeting_begin(&guest->greeting);
    door->guests[door->count++] = guest;
  }
}

/* Read as much as there is, and no byte behind the greeting; as greeting_take. */
static int listen_to(Guest* guest) {
  for (;;) {
    Greeting* greeting = &guest->greeting;
    ssize_t got = recv(guest->socket, greeting->bytes + greeting->got, greeting->wanted - greeting->got, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    if (got == 0) return -1;
    int state = greeting_take(greeting, (size_t)got);
    if (state != 0) return state;
  }
}

int door_arrival(Door* door, Arrival* arrival) {
  double now = seconds_now();
  for (int i = 0; i < door->count;) {
    Guest* guest = door->guests[i];
    int state = listen_to(guest);
    if (state == 1 && greeting_parse(&guest->greeting, arrival->key, &arrival->seconds) == 0) {
      arrival->socket = guest->socket;
      forget(door, i);
      return 1;
    }
    if (state != 0 || now >= guest->deadline)
      drop(door, i);
    else
      ++i;
  }
  return 0;
}

void door_close(Door* door) {
  while (door->count > 0) drop(door, 0);
  close(door->listener);
}

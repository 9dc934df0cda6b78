/* The tracker, where a board is offered to clients. Any peer may say anything: what is no answer ends the connection. */
#ifndef ENET_TVM_TRACKER_H
#define ENET_TVM_TRACKER_H

#include <stddef.h>

#include "address.h"

enum { KEY_ROOM = 80, MATCH_ROOM = KEY_ROOM + 32, PENDING_ROOM = 1 << 20 };

typedef struct {
  char host[HOST_ROOM];
  int port;
  char key[KEY_ROOM];
  char address[HOST_ROOM + 2]; /* by which clients reach the board, as JSON: a string or null */
  int listening;               /* the board's own port */
} Registration;

/* Connect and say who this board is; a socket, or -1 if no tracker answers by the deadline. */
int register_board(const Registration* board, double deadline);

/* Whether an offer is still to be had: 1, 0, or -1 if the tracker is gone or talks nonsense. */
int is_pending(int tracker, const char* match, double deadline);

/* Offer the board under a new match key, which the tracker gives to one client; -1 if the tracker is gone. */
int offer_board(int tracker, const Registration* board, char match[MATCH_ROOM], double deadline);

/* Whether an answer of `length` bytes, with a zero byte behind them, is success; the match keys it lists hold `match` (1 or 0),
   or it lists none (-1). */
int is_success(const char* answer, size_t length);
int lists_key(const char* answer, size_t length, const char* match);

#endif

#include "tracker.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "json.h"
#include "sockets.h"

/* TVM's protocol (tvm/rpc/base.py): a magic number, then JSON texts with their length before them. */
enum { TRACKER_MAGIC = 0x2f271, PUT = 3, UPDATE_INFO = 5, GET_PENDING_MATCHKEYS = 7 };

int is_success(const char* answer, size_t length) {
  int64_t code;
  return json_check(answer, length) == 0 && json_integer(answer + strspn(answer, " \t\r\n"), &code) == 0 && code == 0;
}

int lists_key(const char* answer, size_t length, const char* match) {
  char key[MATCH_ROOM];
  int found = 0;
  if (json_check(answer, length) || json_count(answer) < 0) return -1;
  for (const char* p = json_next(answer, NULL); p != NULL; p = json_next(answer, p)) {
    if (*p != '"') return -1;
    found |= json_string(p, key, sizeof key) == 0 && strcmp(key, match) == 0;
  }
  return found;
}

/* Send a request and return the answer, to be freed; NULL if the tracker is gone. */
static char* ask(int tracker, const char* request, size_t* length, double deadline) {
  return send_text_by(tracker, request, deadline) ? NULL : receive_text_by(tracker, PENDING_ROOM, length, deadline);
}

static int succeeds(int tracker, const char* request, double deadline) {
  size_t length;
  char* answer = ask(tracker, request, &length, deadline);
  int good = answer != NULL && is_success(answer, length);
  free(answer);
  return good;
}

int register_board(const Registration* board, double deadline) {
  char request[700];
  int32_t magic = TRACKER_MAGIC;
  int tracker = connect_by(board->host, board->port, deadline);
  if (tracker < 0) return -1;
  keep_alive(tracker);
  snprintf(request, sizeof request, "[%d, {\"key\": \"server:%s\", \"addr\": [%s, %d]}]", UPDATE_INFO, board->key, board->address,
           board->listening);
  if (send_by(tracker, &magic, sizeof magic, deadline) == 0 && receive_by(tracker, &magic, sizeof magic, deadline) == 0 &&
      magic == TRACKER_MAGIC && succeeds(tracker, request, deadline))
    return tracker;
  close(tracker);
  return -1;
}

int is_pending(int tracker, const char* match, double deadline) {
  char request[16];
  size_t length;
  snprintf(request, sizeof request, "[%d]", GET_PENDING_MATCHKEYS);
  char* answer = ask(tracker, request, &length, deadline);
  int pending = answer != NULL ? lists_key(answer, length, match) : -1;
  free(answer);
  return pending;
}

int offer_board(int tracker, const Registration* board, char match[MATCH_ROOM], double deadline) {
  char request[700];
  uint64_t random = 0;
  FILE* source = fopen("/dev/urandom", "rb");
  int known = source != NULL && fread(&random, sizeof random, 1, source) == 1;
  if (source != NULL) fclose(source);
  if (!known) return -1;
  snprintf(match, MATCH_ROOM, "%s:0.%016llu", board->key, (unsigned long long)(random % 10000000000000000ull));
  snprintf(request, sizeof request, "[%d, \"%s\", [%d, \"%s\"], %s]", PUT, board->key, board->listening, match, board->address);
  return succeeds(tracker, request, deadline) ? 0 : -1;
}

#define _GNU_SOURCE
#include "sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "text.h"

enum { BACKLOG = 128 };

static sigset_t outside; /* the signals that come while it waits */

void mind_signals(void (*stop)(int), void (*wake)(int)) {
  static const int numbers[] = {SIGTERM, SIGINT, SIGCHLD};
  sigset_t minded;
  struct sigaction action = {.sa_handler = stop};
  sigemptyset(&minded);
  for (int i = 0; i < 3; ++i) {
    if (numbers[i] == SIGCHLD) action.sa_handler = wake;
    sigaction(numbers[i], &action, NULL);
    sigaddset(&minded, numbers[i]);
  }
  sigprocmask(SIG_BLOCK, &minded, &outside);
  for (int i = 0; i < 3; ++i) sigdelset(&outside, numbers[i]);
  signal(SIGPIPE, SIG_IGN);
}

void ignore_signals_no_more(void) {
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  signal(SIGCHLD, SIG_DFL);
  sigprocmask(SIG_SETMASK, &outside, NULL);
}

double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int wait_until(struct pollfd* entries, int count, double deadline) {
  double left = fmin(fmax(deadline - seconds_now(), 0), 3600);
  struct timespec pause = {(time_t)left, (long)((left - floor(left)) * 1e9)};
  return ppoll(entries, (nfds_t)count, &pause, &outside);
}

/* Wait until a socket can be read or written; -1 when the time is up, or a signal came. */
static int ready_by(int socket, short what, double deadline) {
  struct pollfd entry = {socket, what, 0};
  return seconds_now() < deadline && wait_until(&entry, 1, deadline) == 1 ? 0 : -1;
}

int send_by(int socket, const void* data, size_t bytes, double deadline) {
  for (const char* at = data; bytes > 0;) {
    ssize_t done = send(socket, at, bytes, MSG_NOSIGNAL);
    if (done < 0 && (errno != EAGAIN || ready_by(socket, POLLOUT, deadline))) return -1;
    if (done > 0) at += done, bytes -= (size_t)done;
  }
  return 0;
}

int receive_by(int socket, void* data, size_t bytes, double deadline) {
  for (char* at = data; bytes > 0;) {
    /* Before each part, so that a side that never stops has a deadline, too. */
    if (ready_by(socket, POLLIN, deadline)) return -1;
    ssize_t done = recv(socket, at, bytes, 0);
    if (done == 0 || (done < 0 && errno != EAGAIN)) return -1;
    if (done > 0) at += done, bytes -= (size_t)done;
  }
  return 0;
}

int send_text_by(int socket, const char* text, double deadline) {
  int32_t length = (int32_t)strlen(text);
  return send_by(socket, &length, sizeof length, deadline) || send_by(socket, text, (size_t)length, deadline) ? -1 : 0;
}

char* receive_text_by(int socket, size_t most, size_t* length, double deadline) {
  int32_t announced;
  if (receive_by(socket, &announced, sizeof announced, deadline) || announced < 0 || (size_t)announced > most) return NULL;
  *length = (size_t)announced;
  char* text = malloc(*length + 1);
  if (text == NULL) return NULL;
  text[*length] = '\0';
  if (receive_by(socket, text, *length, deadline) == 0) return text;
  free(text);
  return NULL;
}

int send_at_once(int socket, const void* data, size_t bytes) {
  return send(socket, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)bytes ? 0 : -1;
}

int connect_by(const char* host, int port, double deadline) {
  char text[16];
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  int connection = -1;
  snprintf(text, sizeof text, "%d", port);
  if (getaddrinfo(host, text, &hints, &found)) return -1;
  for (struct addrinfo* address = found; address != NULL && connection < 0; address = address->ai_next) {
    int error = 0;
    socklen_t length = sizeof error;
    connection = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connection < 0) continue;
    if (connect(connection, address->ai_addr, address->ai_addrlen) == 0 ||
        (errno == EINPROGRESS && ready_by(connection, POLLOUT, deadline) == 0 &&
         getsockopt(connection, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0))
      break;
    close(connection);
    connection = -1;
  }
  freeaddrinfo(found);
  return connection;
}

int listen_at(const char* host, int* port, int end, char* why, size_t size) {
  char text[16];
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
  if (end <= *port) end = *port + 1;
  for (; *port < end; ++*port) {
    snprintf(text, sizeof text, "%d", *port);
    int error = getaddrinfo(host, text, &hints, &found), one = 1;
    if (error) return fail(why, size, "cannot listen at %s: %s; give --host an address of this machine", host, gai_strerror(error));
    int server = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server >= 0) setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    int bound = server >= 0 && bind(server, found->ai_addr, found->ai_addrlen) == 0 && listen(server, BACKLOG) == 0;
    int reason = errno;
    freeaddrinfo(found);
    if (bound) {
      struct sockaddr_storage address;
      socklen_t length = sizeof address;
      if (getsockname(server, (struct sockaddr*)&address, &length) == 0)
        *port = ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6*)&address)->sin6_port
                                                    : ((struct sockaddr_in*)&address)->sin_port);
      return server;
    }
    if (server >= 0) close(server);
    if (reason != EADDRINUSE) return fail(why, size, "cannot listen at %s, port %d: %s", host, *port, strerror(reason));
  }
  return fail(why, size, "every port up to %d is in use; give another --port", end - 1);
}

void keep_alive(int socket) {
  int one = 1, idle = 15, interval = 5, probes = 3;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

void let_block(int socket) { fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) & ~O_NONBLOCK); }

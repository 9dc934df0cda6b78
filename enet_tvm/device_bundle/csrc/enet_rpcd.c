/* enet-rpcd: TVM's RPC server for a board without Python. One process waits, one child serves each session, so that a
   session that crashes, hangs or is killed takes nothing with it. RPC runs what it is sent: that is what it is for. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <glob.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cpus.h"
#include "facts.h"
#include "tvm_call.h"

/* TVM's protocol (tvm/rpc/base.py): magic numbers, then lengths and texts; the tracker's texts are JSON. */
enum { MAGIC = 0xff271, MISMATCH = MAGIC + 2, TRACKER_MAGIC = 0x2f271 };
enum { TRACKER_PUT = 3, TRACKER_INFO = 5, TRACKER_PENDING = 7 };
enum {
  PING_MS = 2000,
  PATIENCE_S = 10,
  GREETING_S = 3,
  PATIENCE_AT_DOOR_S = 1,
  TICK_MS = 20,
  RETRY_S = 2,
  UNCLAIMED_PINGS = 3,
  LONGEST_TEXT = 1 << 20
};
enum { KEY_ROOM = 80, MATCH_ROOM = KEY_ROOM + 32, WHY = 1024 };

#define FOLDER "enet-rpcd-"

static const char usage[] =
    "usage: enet-rpcd --key KEY [options]\n"
    "  --key KEY            name of this board at the tracker, without spaces, colons and quotes\n"
    "  --tracker HOST:PORT  tracker to register with; without one, clients connect directly\n"
    "  --host ADDRESS       address to listen at (default 127.0.0.1: this machine alone)\n"
    "  --port PORT          first port to try (default 9090; 0 for any)\n"
    "  --port-end PORT      port after the last to try (default 9200)\n"
    "  --custom-addr HOST   address by which clients reach this board, where the tracker sees another\n"
    "  --session-seconds N  longest session (default 3600)\n"
    "  --version            print the versions\n"
    "RPC runs whatever code a client sends, as this user: listen only where every client is trusted.\n";

static volatile sig_atomic_t stopping;
static char work[512];
static double longest = 3600;
static char gpu_missing[512]; /* why, in a session that has none */
static TVMFFIAny last;        /* what the last timed call returned */

static void stop(int number) {
  (void)number;
  stopping = 1;
}

static void wake(int number) { (void)number; }

static void say(const char* format, ...) {
  char line[1200], now[32];
  time_t seconds = time(NULL);
  struct tm parts;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  strftime(now, sizeof now, "%Y-%m-%d %H:%M:%S", localtime_r(&seconds, &parts));
  fprintf(stderr, "%s enet-rpcd: %s\n", now, line);
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static _Noreturn void die(int code, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("enet-rpcd: error: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  exit(code);
}

/* ---- what the session needs of its server (the functions tvm/rpc/server.py registers) ---- */

static int refuse(const char* format, const char* what) {
  char text[WHY];
  snprintf(text, sizeof text, format, what);
  TVMFFIErrorSetRaisedFromCStr("RuntimeError", text);
  return -1;
}

/* The text or the bytes of an argument, where they lie; -1 if it is neither. */
static int content(const TVMFFIAny* any, const char** data, size_t* length) {
  const TVMFFIByteArray* cell = NULL;
  switch (any->type_index) {
    case kTVMFFIRawStr:
      *data = any->v_c_str;
      *length = strlen(any->v_c_str);
      return 0;
    case kTVMFFISmallStr:
    case kTVMFFISmallBytes:
      *data = any->v_bytes;
      *length = any->small_str_len;
      return 0;
    case kTVMFFIStr:
    case kTVMFFIBytes: cell = (const TVMFFIByteArray*)((const char*)any->v_obj + sizeof(TVMFFIObject)); break;
    case kTVMFFIByteArrayPtr: cell = any->v_ptr; break;
    default: return -1;
  }
  *data = cell->data;
  *length = cell->size;
  return 0;
}

/* The file of the session's folder that an argument names. */
static int file_of(const TVMFFIAny* arguments, int32_t count, char* path, size_t room) {
  const char* name;
  size_t length;
  if (count < 1 || content(arguments, &name, &length)) return refuse("%s expected", "a file name");
  if ((size_t)snprintf(path, room, "%s/%.*s", work, (int)length, name) >= room)
    return refuse("%s is too long", "the file name");
  return 0;
}

static int workpath(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char path[1024];
  (void)self;
  if (file_of(arguments, count, path, sizeof path)) return -1;
  TVMFFIByteArray text = {path, strlen(path)};
  return TVMFFIStringFromByteArray(&text, result);
}

static int load_module(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char path[1024];
  (void)self;
  if (file_of(arguments, count, path, sizeof path)) return -1;
  TVMFFIAny name = tvm_string(path);
  TVMFFIObjectHandle load = tvm_global("ffi.ModuleLoadFromFile");
  return load == NULL ? refuse("TVM's runtime has no %s", "ffi.ModuleLoadFromFile")
                      : TVMFFIFunctionCall(load, &name, 1, result);
}

/* TVM's own upload does not say when the disk is full, and the truncated library fails later. */
static int upload(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char path[1024];
  const char* data;
  size_t length;
  (void)self;
  if (file_of(arguments, count, path, sizeof path)) return -1;
  if (count < 2 || content(arguments + 1, &data, &length)) return refuse("%s expected", "the file's bytes");
  FILE* file = fopen(path, "wb");
  int good = file != NULL && fwrite(data, 1, length, file) == length;
  int error = errno;
  if (file != NULL && fclose(file) != 0 && good) {
    good = 0;
    error = errno;
  }
  *result = tvm_none();
  if (good) return 0;
  remove(path);
  return refuse("the device cannot store the file: %s", strerror(error));
}

static int text_result(const char* text, TVMFFIAny* result) {
  TVMFFIByteArray bytes = {text, strlen(text)};
  return TVMFFIStringFromByteArray(&bytes, result);
}

static int tell_facts(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char facts[16384];
  (void)self, (void)arguments, (void)count;
  device_facts(facts, sizeof facts);
  return text_result(facts, result);
}

/* A text argument with its end marked; -1 if it is none, or too long. */
static int text_of(const TVMFFIAny* arguments, int32_t count, char* text, size_t room) {
  const char* data;
  size_t length;
  if (count < 1 || content(arguments, &data, &length) || length >= room) return refuse("%s expected", "a short text");
  memcpy(text, data, length);
  text[length] = '\0';
  return 0;
}

static int open_gpu(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char why[WHY];
  (void)self, (void)arguments, (void)count;
  TVMFFIObjectHandle ask = tvm_global("runtime.GetDeviceAttr");
  TVMFFIAny asked[3] = {tvm_int(kDLCUDA), tvm_int(0), tvm_int(0 /* kExist */)}, there;
  if (gpu_missing[0]) return refuse("TVM's CUDA runtime does not load on the device (%s)", gpu_missing);
  if (ask == NULL || tvm_call(ask, 3, asked, &there, why, sizeof why)) return refuse("%s", "TVM's runtime knows no devices");
  if (there.v_int64 == 0) return refuse("the device has no %s", "GPU that its CUDA driver finds");
  *result = tvm_none();
  return 0;
}

/* Call a function of a virtual machine (machine, name, input) and return the seconds: no network is in between. */
static int time_call(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char why[WHY];
  (void)self;
  if (count != 3) return refuse("%s expected", "a machine, a name and an input");
  TVMFFIAny asked[3] = {arguments[0], arguments[1], tvm_bool(1)}, function, input = arguments[2], output;
  TVMFFIObjectHandle get = tvm_global("ffi.ModuleGetFunction");
  if (get == NULL || tvm_call(get, 3, asked, &function, why, sizeof why)) return refuse("%s", get == NULL ? "no modules" : why);
  if (function.type_index != kTVMFFIFunction) return refuse("the machine has no such %s", "function");
  double begin = seconds();
  int failed = tvm_call(function.v_obj, 1, &input, &output, why, sizeof why);
  double took = seconds() - begin;
  tvm_release(&function);
  if (failed) return refuse("%s", why);
  tvm_release(&last);
  last = output;
  *result = tvm_none();
  result->type_index = kTVMFFIFloat;
  result->v_float64 = took;
  return 0;
}

static int last_output(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  (void)self, (void)arguments, (void)count;
  return TVMFFIAnyViewToOwnedAny(&last, result);
}

/* The paths that a pattern matches, one a line. */
static int find_files(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char pattern[512], paths[8192] = "";
  size_t used = 0;
  glob_t found;
  (void)self;
  if (text_of(arguments, count, pattern, sizeof pattern)) return -1;
  if (glob(pattern, 0, NULL, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc && used < sizeof paths; ++i)
      used += (size_t)snprintf(paths + used, sizeof paths - used, "%s%s", i > 0 ? "\n" : "", found.gl_pathv[i]);
    globfree(&found);
  }
  return text_result(paths, result);
}

/* What a small file says, without the ends of lines around it; none if it cannot be read. */
static int read_file(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char path[512], said[8192], *begin = said;
  (void)self;
  if (text_of(arguments, count, path, sizeof path)) return -1;
  *result = tvm_none();
  FILE* file = fopen(path, "r");
  if (file == NULL) return 0;
  size_t length = fread(said, 1, sizeof said - 1, file);
  int good = !ferror(file);
  fclose(file);
  if (!good) return 0;
  while (length > 0 && strchr(" \t\r\n", said[length - 1])) --length; /* which finds a zero byte, too */
  said[length] = '\0';
  while (*begin && strchr(" \t\r\n", *begin)) ++begin;
  return text_result(begin, result);
}

static void provide(const char* name, TVMFFISafeCallType function) {
  TVMFFIObjectHandle object = NULL;
  TVMFFIByteArray text = {name, strlen(name)};
  if (TVMFFIFunctionCreate(NULL, function, NULL, &object) || TVMFFIFunctionSetGlobal(&text, object, 1))
    die(1, "cannot register %s with TVM's runtime", name);
  TVMFFIObjectDecRef(object);
}

/* ---- sockets ---- */

static int transfer(int socket, void* memory, size_t bytes, int out) {
  for (char* at = memory; bytes > 0;) {
    ssize_t done = out ? send(socket, at, bytes, MSG_NOSIGNAL) : recv(socket, at, bytes, 0);
    if (done < 0 && errno == EINTR && !stopping) continue;
    if (done <= 0) return -1;
    at += done;
    bytes -= (size_t)done;
  }
  return 0;
}

static int put_number(int socket, int32_t number) { return transfer(socket, &number, sizeof number, 1); }

static int get_number(int socket, int32_t* number) { return transfer(socket, number, sizeof *number, 0); }

static int put_text(int socket, const char* text) {
  return put_number(socket, (int32_t)strlen(text)) || transfer(socket, (void*)(uintptr_t)text, strlen(text), 1) ? -1 : 0;
}

static char* get_text(int socket) {
  int32_t length;
  if (get_number(socket, &length) || length < 0 || length > LONGEST_TEXT) return NULL;
  char* text = calloc(1, (size_t)length + 1);
  if (text != NULL && transfer(socket, text, (size_t)length, 0)) {
    free(text);
    return NULL;
  }
  return text;
}

/* Limit how long the other side may keep us waiting; 0 for without limit. */
static void limit(int socket, int seconds) {
  struct timeval time = {seconds, 0};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time);
  setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time);
}

static int listen_at(const char* host, int* port, int end) {
  char text[16];
  struct addrinfo hints = {0}, *found;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  if (end <= *port) end = *port + 1;
  for (; *port < end; ++*port) {
    snprintf(text, sizeof text, "%d", *port);
    int error = getaddrinfo(host, text, &hints, &found), one = 1;
    if (error) die(2, "cannot listen at %s: %s; give --host an address of this machine", host, gai_strerror(error));
    int server = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server >= 0) setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    int bound = server >= 0 && bind(server, found->ai_addr, found->ai_addrlen) == 0 && listen(server, 16) == 0;
    int why = errno;
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
    if (why != EADDRINUSE) die(2, "cannot listen at %s, port %d: %s", host, *port, strerror(why));
  }
  die(2, "every port up to %d is in use; give another --port", end - 1);
}

/* ---- the tracker ---- */

typedef struct {
  char host[256], port[16], key[KEY_ROOM], address[264];
  int listening;
} Registration;

/* Send a request and return the answer, to be freed; NULL if the tracker is gone. */
static char* ask(int tracker, const char* request) { return put_text(tracker, request) ? NULL : get_text(tracker); }

static int accepted(int tracker, const char* request) {
  char* answer = ask(tracker, request);
  int good = answer != NULL && strcmp(answer, "0") == 0;
  free(answer);
  return good;
}

static int connect_tracker(const Registration* board) {
  struct addrinfo hints = {0}, *found;
  char request[700];
  int32_t magic;
  hints.ai_socktype = SOCK_STREAM;
  if (getaddrinfo(board->host, board->port, &hints, &found)) return -1;
  int tracker = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  limit(tracker, PATIENCE_S);
  int good = tracker >= 0 && connect(tracker, found->ai_addr, found->ai_addrlen) == 0 &&
             put_number(tracker, TRACKER_MAGIC) == 0 && get_number(tracker, &magic) == 0 && magic == TRACKER_MAGIC;
  freeaddrinfo(found);
  snprintf(request, sizeof request, "[%d, {\"key\": \"server:%s\", \"addr\": [%s, %d]}]", TRACKER_INFO, board->key,
           board->address, board->listening);
  if (good && accepted(tracker, request)) return tracker;
  if (tracker >= 0) close(tracker);
  return -1;
}

/* Offer this board under a new match key, which the tracker gives to one client. */
static int offer(int tracker, const Registration* board, char match[MATCH_ROOM]) {
  char request[700];
  uint64_t random = 0;
  FILE* source = fopen("/dev/urandom", "rb");
  if (source == NULL || fread(&random, sizeof random, 1, source) != 1) die(1, "cannot read /dev/urandom");
  fclose(source);
  snprintf(match, MATCH_ROOM, "%s:0.%016llu", board->key, (unsigned long long)(random % 10000000000000000ull));
  snprintf(request, sizeof request, "[%d, \"%s\", [%d, \"%s\"], %s]", TRACKER_PUT, board->key, board->listening, match,
           board->address);
  return accepted(tracker, request) ? 0 : -1;
}

/* ---- sessions ---- */

static int erase(const char* path, const struct stat* entry, int kind, struct FTW* place) {
  (void)entry, (void)kind, (void)place;
  remove(path);
  return 0; /* go on with the rest */
}

static const char* base(void) {
  const char* folder = getenv("TMPDIR");
  return folder != NULL && *folder ? folder : "/tmp";
}

/* Remove the folders of servers that were killed. */
static void clear_up(void) {
  char pattern[512], process[64];
  glob_t found;
  snprintf(pattern, sizeof pattern, "%s/" FOLDER "*-??????", base());
  if (glob(pattern, 0, NULL, &found) != 0) return;
  for (size_t i = 0; i < found.gl_pathc; ++i) {
    snprintf(process, sizeof process, "/proc/%ld", strtol(strrchr(found.gl_pathv[i], '/') + 1 + strlen(FOLDER), NULL, 10));
    if (access(process, F_OK) != 0) nftw(found.gl_pathv[i], erase, 16, FTW_DEPTH | FTW_PHYS);
  }
  globfree(&found);
}

static _Noreturn void session(int client, pid_t parent) {
  char why[WHY];
  TVMFFIAny argument = tvm_int(client), result;
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody must outlive the server */
  if (getppid() != parent) _exit(1);
  struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none); /* a crash must not fill the card of a small board */
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  signal(SIGCHLD, SIG_DFL);
  if (chdir(work)) _exit(1);
  /* Here and not in the server: what a driver sets up does not survive a fork. */
  if (dlopen("libtvm_runtime_cuda.so", RTLD_NOW | RTLD_GLOBAL) == NULL)
    snprintf(gpu_missing, sizeof gpu_missing, "%s", dlerror());
  TVMFFIObjectHandle loop = tvm_global("rpc.ServerLoop");
  if (loop == NULL || tvm_call(loop, 1, &argument, &result, why, sizeof why)) {
    say("the session failed: %s", loop == NULL ? "TVM's runtime has no rpc.ServerLoop" : why);
    _exit(1);
  }
  _exit(0);
}

static const char* name_of(int number) {
  static const struct {
    int number;
    const char* name;
  } names[] = {{SIGILL, "SIGILL"},   {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},  {SIGFPE, "SIGFPE"},
               {SIGKILL, "SIGKILL"}, {SIGSEGV, "SIGSEGV"}, {SIGTERM, "SIGTERM"}};
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
    if (names[i].number == number) return names[i].name;
  return strsignal(number);
}

/* Tell a client that waits for an answer what became of it, without waiting for the client. */
static void tell(int client, const char* message) {
  char why[WHY];
  TVMFFIObjectHandle function = tvm_global("rpc.ReturnException");
  TVMFFIAny result, arguments[2] = {tvm_int(client), tvm_string(message)};
  fcntl(client, F_SETFL, fcntl(client, F_GETFL) | O_NONBLOCK);
  if (function != NULL && tvm_call(function, 2, arguments, &result, why, sizeof why) == 0) tvm_release(&result);
}

/* Greet a client; its socket if it has come for this board under the match key (NULL: under none), else -1. It says
   "client:MATCH -timeout=SECONDS". */
static int greet(int server, const char* match, const char* key, double* timeout) {
  int32_t magic;
  char wanted[MATCH_ROOM + 8], own[KEY_ROOM + 8];
  int client = accept4(server, NULL, NULL, SOCK_CLOEXEC);
  if (client < 0) return -1;
  limit(client, GREETING_S);
  char* text = get_number(client, &magic) == 0 && magic == MAGIC ? get_text(client) : NULL;
  size_t length = (size_t)snprintf(wanted, sizeof wanted, "client:%s", match != NULL ? match : "");
  snprintf(own, sizeof own, "server:%s", key);
  if (text == NULL) {
    say("a connection that is no TVM client was closed");
  } else if (match == NULL || strncmp(text, wanted, length) || (text[length] && text[length] != ' ')) {
    put_number(client, MISMATCH);
    say(match == NULL ? "a client was sent away: the board is taken" : "a client with another key was sent away");
  } else {
    const char* option = strstr(text, "-timeout=");
    *timeout = option != NULL ? strtod(option + 9, NULL) : 0;
    if (!(*timeout > 0 && *timeout < longest)) *timeout = longest;
    free(text);
    if (put_number(client, MAGIC) == 0 && put_text(client, own) == 0) return client;
    close(client);
    return -1;
  }
  free(text);
  close(client);
  return -1;
}

static void serve(int client, double timeout, int server, int tracker) {
  int one = 1, idle = 15, interval = 5, probes = 3, status = 0;
  snprintf(work, sizeof work, "%s/" FOLDER "%d-XXXXXX", base(), (int)getpid());
  if (mkdtemp(work) == NULL) {
    char message[160];
    snprintf(message, sizeof message, "the device cannot make a folder for the session: %s", strerror(errno));
    say("%s", message);
    tell(client, message);
    close(client);
    return;
  }
  /* A client whose machine is gone says nothing: without probes the session would wait for ever. */
  setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  setsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
  setsockopt(client, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
  setsockopt(client, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
  setsockopt(client, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
  limit(client, 0);
  pid_t parent = getpid(), child = fork();
  if (child == 0) {
    close(server);
    if (tracker >= 0) close(tracker);
    session(client, parent);
  }
  if (child < 0) {
    say("cannot start a session: %s", strerror(errno));
  } else {
    setpgid(child, child);
    double begin = seconds(), knocked = 0;
    char message[160] = "";
    while (waitpid(child, &status, WNOHANG) == 0) {
      int late = seconds() - begin > timeout;
      if (late) snprintf(message, sizeof message, "RPCSessionTimeoutError: the session's %g s are over", timeout);
      if (stopping) snprintf(message, sizeof message, "the device's server was stopped");
      if (late || stopping) {
        kill(-child, SIGKILL);
        waitpid(child, &status, 0);
        break;
      }
      struct pollfd waiting = {server, POLLIN, 0};
      double none, now = seconds();
      if (poll(&waiting, 1, TICK_MS) <= 0) {
        knocked = 0;
      } else if (knocked == 0) {
        knocked = now; /* a session that ends right now may still make room */
      } else if (now - knocked > PATIENCE_AT_DOOR_S) {
        greet(server, NULL, "", &none);
        knocked = 0;
      } else {
        struct timespec pause = {0, TICK_MS * 1000000};
        nanosleep(&pause, NULL);
      }
    }
    kill(-child, SIGKILL); /* whatever the session started */
    if (message[0] == '\0' && WIFSIGNALED(status))
      snprintf(message, sizeof message, "the session's process on the device died of %s", name_of(WTERMSIG(status)));
    if (message[0]) {
      say("%s", message);
      tell(client, message);
    } else {
      say("session of %.1f s ended", seconds() - begin);
    }
  }
  close(client);
  nftw(work, erase, 16, FTW_DEPTH | FTW_PHYS);
}

/* Serve until the tracker is gone, or for ever without one (`tracker` -1). */
static void attend(int server, int tracker, const Registration* board) {
  char match[MATCH_ROOM];
  while (!stopping) {
    int missed = 0, client = -1;
    double timeout = 0;
    if (tracker < 0)
      snprintf(match, sizeof match, "%s", board->key);
    else if (offer(tracker, board, match))
      return;
    while (!stopping && client < 0 && missed <= UNCLAIMED_PINGS) {
      struct pollfd sources[2] = {{server, POLLIN, 0}, {tracker, POLLIN, 0}};
      int ready = poll(sources, tracker < 0 ? 1 : 2, PING_MS);
      if (ready < 0) continue; /* a signal */
      if (sources[0].revents)
        client = greet(server, match, board->key, &timeout);
      else if (ready > 0)
        return; /* the tracker speaks only when asked: it hung up */
      else if (tracker >= 0) {
        char request[16];
        snprintf(request, sizeof request, "[%d]", TRACKER_PENDING);
        char* pending = ask(tracker, request);
        if (pending == NULL) return;
        /* A client was given the key and does not come: offer another. */
        missed = strstr(pending, match) ? 0 : missed + 1;
        free(pending);
      }
    }
    if (client >= 0) serve(client, timeout, server, tracker);
  }
}

static int port_of(const char* text, const char* option) {
  char* end;
  long port = strtol(text, &end, 10);
  if (end == text || *end || port < 0 || port > 65535) die(2, "%s is %s and must be a port, 0 to 65535", option, text);
  return (int)port;
}

int main(int argc, char** argv) {
  enum { KEY = 256, TRACKER, SECONDS, HOST, PORT, PORT_END, CUSTOM, HELP, VERSION };
  static const struct option options[] = {{"key", 1, NULL, KEY},
                                          {"session-seconds", 1, NULL, SECONDS},
                                          {"tracker", 1, NULL, TRACKER},
                                          {"host", 1, NULL, HOST},
                                          {"port", 1, NULL, PORT},
                                          {"port-end", 1, NULL, PORT_END},
                                          {"custom-addr", 1, NULL, CUSTOM},
                                          {"help", 0, NULL, HELP},
                                          {"version", 0, NULL, VERSION},
                                          {NULL, 0, NULL, 0}};
  Registration board = {.address = "null"};
  const char *host = "127.0.0.1", *tracker = NULL;
  char* rest;
  int port = 9090, end = 9200, option;
  while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
    switch (option) {
      case KEY:
        if (*optarg == '\0' || strlen(optarg) >= sizeof board.key - 1 || strpbrk(optarg, " :\"\\\t\n") != NULL)
          die(2, "--key is '%s' and must be a short name without spaces, colons and quotes", optarg);
        snprintf(board.key, sizeof board.key, "%s", optarg);
        break;
      case SECONDS:
        longest = strtod(optarg, &rest);
        if (*rest || rest == optarg || !(longest > 0 && longest < 1e9))
          die(2, "--session-seconds is %s and must be a number of seconds above 0", optarg);
        break;
      case TRACKER: tracker = optarg; break;
      case HOST: host = optarg; break;
      case PORT: port = port_of(optarg, "--port"); break;
      case PORT_END: end = port_of(optarg, "--port-end"); break;
      case CUSTOM:
        if (strlen(optarg) > 255 || strpbrk(optarg, " \"\\\t\n") != NULL)
          die(2, "--custom-addr is '%s' and must be a host's name or address", optarg);
        snprintf(board.address, sizeof board.address, "\"%s\"", optarg);
        break;
      case HELP: return fputs(usage, stdout) < 0;
      case VERSION: return printf("enet-rpcd for apache-tvm %s, apache-tvm-ffi %s\n", APACHE_TVM, APACHE_TVM_FFI) < 0;
      default: return fputs(usage, stderr), 2;
    }
  }
  if (optind < argc || board.key[0] == '\0') return fputs(usage, stderr), 2;
  if (tracker != NULL) {
    const char* colon = strrchr(tracker, ':');
    if (colon == NULL || colon == tracker || colon - tracker >= (ptrdiff_t)sizeof board.host ||
        port_of(colon + 1, "--tracker") == 0)
      die(2, "--tracker is %s and must be HOST:PORT", tracker);
    snprintf(board.host, sizeof board.host, "%.*s", (int)(colon - tracker), tracker);
    snprintf(board.port, sizeof board.port, "%s", colon + 1);
  }
  struct sigaction action = {.sa_handler = stop}; /* without SA_RESTART, so that waiting ends */
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  action.sa_handler = wake;
  sigaction(SIGCHLD, &action, NULL);
  signal(SIGPIPE, SIG_IGN);

  ThreadCount count;
  char message[WHY];
  if (default_threads("", &count, message, sizeof message)) die(2, "%s", message);
  snprintf(message, sizeof message, "%d", count.allowed);
  setenv("TVM_NUM_THREADS", message, 0); /* else TVM's pools have half the processors of x86-64 */
  if (getenv("TVM_THREAD_POOL_SPIN_COUNT") == NULL) setenv("TVM_THREAD_POOL_SPIN_COUNT", "4000", 0);
  /* The random fill that tuning asks for; nothing else does. */
  if (dlopen("libtvm_runtime_extra.so", RTLD_NOW | RTLD_GLOBAL) == NULL) say("tuning will not work: %s", dlerror());
  provide("tvm.rpc.server.workpath", workpath);
  provide("tvm.rpc.server.load_module", load_module);
  provide("tvm.rpc.server.upload", upload);
  provide("enet_tvm.device_facts", tell_facts);
  provide("enet_tvm.open_gpu", open_gpu);
  provide("enet_tvm.time_call", time_call);
  provide("enet_tvm.last_output", last_output);
  provide("enet_tvm.find_files", find_files);
  provide("enet_tvm.read_file", read_file);
  clear_up();
  int server = listen_at(host, &port, end);
  board.listening = port;
  say("%s listens at %s, port %d; RPC runs whatever code a client sends", board.key, host, port);
  if (tracker == NULL) attend(server, -1, &board);
  for (int silent = 0; tracker != NULL && !stopping;) {
    int connection = connect_tracker(&board);
    if (connection >= 0) {
      say("registered with the tracker at %s", tracker);
      silent = 0;
      attend(server, connection, &board);
      close(connection);
      if (!stopping) say("the tracker at %s is gone", tracker);
    } else if (!silent && !stopping) {
      say("no tracker answers at %s; trying again every %d s", tracker, RETRY_S);
      silent = 1;
    }
    struct timespec pause = {connection >= 0 ? 0 : RETRY_S, 200000000};
    if (!stopping) nanosleep(&pause, NULL);
  }
  say("stopped");
  close(server);
  _exit(0);
}

/* enet-rpcd: TVM's RPC server for a board without Python. One process waits, one child serves each session, so that a
   session that crashes, hangs or is killed takes nothing with it. RPC runs what it is sent: that is what it is for. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <glob.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "address.h"
#include "cpus.h"
#include "facts.h"
#include "greeting.h"
#include "instrument.h"
#include "pool.h"
#include "session_folder.h"
#include "sockets.h"
#include "text.h"
#include "tracker.h"
#include "tvm_arguments.h"
#include "tvm_call.h"
#include "upload_name.h"

enum { PING_S = 2, TRACKER_S = 3, UNCLAIMED_S = 6, FAREWELL_S = 2, LONGEST_LINE = 16, WHY = 1024 };
enum { MOST_READ = 1 << 20 };

static const char usage[] =
    "usage: enet-rpcd --key KEY [options]\n"
    "  --key KEY            name of this board at the tracker, without spaces, colons and quotes\n"
    "  --tracker HOST:PORT  tracker to register with, [IPV6]:PORT, or either without a port (9190); without a tracker, clients\n"
    "                       connect directly\n"
    "  --host ADDRESS       address to listen at (default 127.0.0.1: this machine alone)\n"
    "  --port PORT          first port to try (default 9090; 0 for any)\n"
    "  --port-end PORT      port after the last to try (default 9200)\n"
    "  --custom-addr HOST   address by which clients reach this board, where the tracker sees another\n"
    "  --session-seconds N  longest session (default 3600)\n"
    "  --version            print the versions\n"
    "RPC runs whatever code a client sends, as this user: listen only where every client is trusted.\n";

static volatile sig_atomic_t stopping;
static SessionFolder folder;
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
  make_printable(line); /* what others say is not for the terminal to obey */
  strftime(now, sizeof now, "%Y-%m-%d %H:%M:%S", localtime_r(&seconds, &parts));
  fprintf(stderr, "%s enet-rpcd: %s\n", now, line);
}

static _Noreturn void die(int code, const char* format, ...) {
  char line[WHY];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  make_printable(line);
  fprintf(stderr, "enet-rpcd: error: %s\n", line);
  exit(code);
}

/* ---- what the session needs of its server (the functions tvm/rpc/server.py registers) ---- */

/* The file of the session's folder that an argument names. */
static int file_of(const TVMFFIAny* arguments, int32_t count, char* path, size_t room) {
  const char* name;
  size_t length;
  if (count < 1 || content(arguments, &name, &length)) return refuse("%s expected", "a file name");
  if (!is_upload_name(name, length)) return refuse("%s lies outside the session's folder, or is no name", "the file");
  if ((size_t)snprintf(path, room, "%s/%.*s", folder.files, (int)length, name) >= room)
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
  /* The folders that the name speaks of. */
  for (char* slash = path + strlen(folder.files) + 1; (slash = strchr(slash, '/')) != NULL; *slash++ = '/') {
    *slash = '\0';
    mkdir(path, 0700);
  }
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
  char told[WHY];
  snprintf(told, sizeof told, "cannot store %s on the device: %s", path + strlen(folder.files) + 1, strerror(error));
  return refuse("%s", told);
}

static int tell_facts(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char facts[16384];
  (void)self, (void)arguments, (void)count;
  device_facts(facts, sizeof facts);
  return text_result(facts, result);
}

/* Make the pool of this session's kernels as large as its client asks, at most a thread for each processor; the size it has. */
static int configure_threads(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char why[WHY];
  (void)self;
  if (count != 1 || arguments[0].type_index != kTVMFFIInt) return refuse("%s expected", "a number of threads");
  TVMFFIObjectHandle size = tvm_global("runtime.NumThreads");
  if (size == NULL) return refuse("TVM's runtime has no %s", "thread pool to configure");
  if (make_pool(arguments[0].v_int64, why, sizeof why)) return refuse("%s", why);
  return tvm_call(size, 0, NULL, result, why, sizeof why) ? refuse("%s", why) : 0;
}

/* Bind this session to processors, given the number of threads that its client asks for (0 for the default) and the processors'
   numbers, joined by commas; what it is bound to, or why not, in words. */
static int bind_session(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char text[WHY], numbers[8192], *rest = numbers;
  int cores[MOST_CORES], named = 0;
  (void)self;
  if (count != 2 || arguments[0].type_index != kTVMFFIInt) return refuse("%s expected", "a number of threads, and cores");
  if (text_of(arguments + 1, 1, numbers, sizeof numbers)) return -1;
  for (char* number; (number = strsep(&rest, ",")) != NULL;) {
    char* end;
    long core = strtol(number, &end, 10);
    if (end == number || *end || core < 0 || core >= MOST_CORES || named == MOST_CORES)
      return refuse("%s expected", "numbers of processors, joined by commas");
    cores[named++] = (int)core;
  }
  if (bind_cores(cores, named, (long)arguments[0].v_int64, text, sizeof text) < 0)
    return refuse("cannot choose the processors: %s", strerror(errno));
  return text_result(text, result);
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
  double begin = seconds_now();
  int failed = tvm_call(function.v_obj, 1, &input, &output, why, sizeof why);
  double took = seconds_now() - begin;
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
  char pattern[512];
  Growing paths = {0};
  glob_t found;
  (void)self;
  if (text_of(arguments, count, pattern, sizeof pattern)) return -1;
  if (glob(pattern, 0, NULL, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; ++i) grow(&paths, "%s%s", i > 0 ? "\n" : "", found.gl_pathv[i]);
    globfree(&found);
  }
  return growing_result(&paths, result);
}

/* What a file of the kernel's says, without white space and zero bytes around it; none if it cannot be read. */
static int read_file(void* self, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
  char path[512], *said = NULL;
  size_t length = 0, room = 0, got = 0;
  (void)self;
  if (text_of(arguments, count, path, sizeof path)) return -1;
  *result = tvm_none();
  FILE* file = fopen(path, "r");
  if (file == NULL) return 0;
  do {
    length += got;
    if (length + 1 >= room) {
      char* larger = room < MOST_READ ? realloc(said, room = 2 * room + 8192) : NULL;
      if (larger == NULL) {
        free(said);
        fclose(file);
        return refuse("%s is too large to be read", path);
      }
      said = larger;
    }
  } while ((got = fread(said + length, 1, room - length - 1, file)) > 0);
  int good = !ferror(file);
  fclose(file);
  while (length > 0 && strchr(" \t\r\n", said[length - 1])) --length; /* which finds a zero byte, too */
  said[length] = '\0';
  int status = good ? text_result(said + strspn(said, " \t\r\n"), result) : 0;
  free(said);
  return status;
}

static void provide(const char* name, TVMFFISafeCallType function) {
  TVMFFIObjectHandle object = NULL;
  TVMFFIByteArray text = {name, strlen(name)};
  if (TVMFFIFunctionCreate(NULL, function, NULL, &object) || TVMFFIFunctionSetGlobal(&text, object, 1))
    die(1, "cannot register %s with TVM's runtime", name);
  TVMFFIObjectDecRef(object);
}

/* ---- sessions ---- */

typedef struct {
  pid_t process; /* 0 if there is no session */
  int client;
  double begin, seconds, left; /* when its client left in the middle of a call, or 0 */
} Session;

typedef struct {
  Registration board;
  const char* tracker_name; /* NULL if clients connect by address and key alone */
  Door door;
  int tracker; /* -1 if there is none */
  int missed;  /* whether it was said that no tracker answers */
  double tracker_due, tracker_since, unclaimed;
  char match[MATCH_ROOM]; /* that the next client must show; empty if the board is not offered */
  Arrival line[LONGEST_LINE]; /* clients that wait for the end of the session where there is no tracker to wait at */
  int waiting;
  Session session;
} Server;

static _Noreturn void become_session(int client, pid_t parent) {
  char why[WHY];
  TVMFFIAny argument = tvm_int(client), result;
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* nobody must outlive the server */
  if (getppid() != parent) _exit(1);
  struct rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none); /* a crash must not fill the card of a small board */
  ignore_signals_no_more();
  if (chdir(folder.files)) _exit(1);
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

static int has_left(int client) {
  struct pollfd entry = {client, POLLRDHUP, 0};
  return poll(&entry, 1, 0) == 1;
}

static void begin_session(Server* server, int client, double seconds) {
  pid_t parent = getpid(), child = -1;
  server->match[0] = '\0';
  keep_alive(client); /* a client whose machine is gone says nothing: without probes the session would wait for ever */
  let_block(client);
  int made = make_session_folder(&folder) == 0;
  if (made && (child = fork()) == 0) {
    /* What this process kept open would stay open when the server closes it. */
    door_close(&server->door);
    for (int i = 0; i < server->waiting; ++i) close(server->line[i].socket);
    if (server->tracker >= 0) close(server->tracker);
    close(folder.lock);
    become_session(client, parent);
  }
  if (child < 0) {
    char message[160];
    snprintf(message, sizeof message, "the device cannot begin a session: %s", strerror(errno));
    say("%s", message);
    tell(client, message);
    close(client);
    if (made) remove_session_folder(&folder);
    return;
  }
  setpgid(child, child);
  server->session = (Session){child, client, seconds_now(), seconds > 0 && seconds < longest ? seconds : longest, 0};
}

/* End a session, if it has not ended by itself, and clear up after it. */
static void end_session(Server* server, int ended, int status, const char* why) {
  Session session = server->session;
  char message[160] = "";
  kill(-session.process, SIGKILL); /* and whatever it started */
  if (!ended) {
    kill(session.process, SIGKILL); /* between fork and setpgid there is no such group yet */
    waitpid(session.process, &status, 0);
    snprintf(message, sizeof message, "%s", why);
  } else if (WIFSIGNALED(status)) {
    snprintf(message, sizeof message, "the session's process on the device died of %s", name_of(WTERMSIG(status)));
  }
  if (message[0]) {
    say("%s", message);
    tell(session.client, message);
  } else {
    say("session of %.1f s ended", seconds_now() - session.begin);
  }
  close(session.client);
  remove_session_folder(&folder);
  server->session = (Session){0};
}

static void watch_session(Server* server) {
  Session* session = &server->session;
  char why[160];
  int status;
  if (session->process == 0) return;
  double now = seconds_now();
  if (waitpid(session->process, &status, WNOHANG) == session->process) {
    end_session(server, 1, status, "");
  } else if (now - session->begin > session->seconds) {
    snprintf(why, sizeof why, "RPCSessionTimeoutError: the session's %g s are over", session->seconds);
    end_session(server, 0, 0, why);
  } else if (session->left == 0) {
    if (has_left(session->client)) session->left = now;
  } else if (now - session->left > FAREWELL_S) {
    end_session(server, 0, 0, "the session's client had left in the middle of a call");
  }
}

/* ---- clients ---- */

static void send_away(int client) {
  static const int32_t answer = RPC_MISMATCH;
  send_at_once(client, &answer, sizeof answer);
  close(client);
}

static void welcome(Server* server, const Arrival* arrival) {
  char answer[2 * sizeof(int32_t) + KEY_ROOM + 8];
  int length = snprintf(answer + 8, sizeof answer - 8, "server:%s", server->board.key);
  const int32_t head[2] = {RPC_MAGIC, length};
  memcpy(answer, head, sizeof head);
  if (send_at_once(arrival->socket, answer, sizeof head + (size_t)length))
    close(arrival->socket);
  else
    begin_session(server, arrival->socket, arrival->seconds);
}

/* Give a client the board if it is the one that waits for it; without a tracker, let it wait in line. */
static void answer(Server* server, const Arrival* arrival) {
  int alone = server->tracker_name == NULL;
  const char* expected = alone ? server->board.key : server->match;
  if (arrival->key[0] && strcmp(arrival->key, expected) == 0 && !stopping) {
    if (server->session.process == 0 && server->waiting == 0) {
      welcome(server, arrival);
      return;
    }
    if (alone && server->waiting < LONGEST_LINE) {
      keep_alive(arrival->socket);
      server->line[server->waiting++] = *arrival;
      return;
    }
  }
  say("a client was sent away: %s", server->session.process ? "the board is taken" : "it came with another key");
  send_away(arrival->socket);
}

static void leave_line(Server* server, int i) {
  memmove(server->line + i, server->line + i + 1, (size_t)(--server->waiting - i) * sizeof *server->line);
}

static void serve_next_in_line(Server* server) {
  for (int i = 0; i < server->waiting;) {
    if (has_left(server->line[i].socket)) {
      close(server->line[i].socket);
      leave_line(server, i);
    } else {
      ++i;
    }
  }
  while (server->waiting > 0 && server->session.process == 0) {
    Arrival first = server->line[0];
    leave_line(server, 0);
    welcome(server, &first);
  }
}

/* ---- the tracker ---- */

static void drop_tracker(Server* server) {
  if (server->tracker >= 0) close(server->tracker);
  server->tracker = -1;
  server->match[0] = '\0';
  server->unclaimed = 0;
  server->tracker_due = server->tracker_since + PING_S; /* at once, unless it hangs up whenever it is called */
}

/* Register, and offer the board if it is free and not offered; -1 if the tracker is gone. */
static int speak_to_tracker(Server* server, double deadline) {
  if (server->tracker < 0) {
    server->tracker_since = seconds_now();
    if ((server->tracker = register_board(&server->board, deadline)) < 0) return -1;
  }
  int pending = is_pending(server->tracker, server->match, deadline);
  if (pending < 0) return -1;
  if (server->session.process) return 0;
  if (server->match[0]) {
    double now = seconds_now();
    if (pending || server->unclaimed == 0) server->unclaimed = pending ? 0 : now;
    if (pending || now - server->unclaimed < UNCLAIMED_S) return 0;
    say("promised to a client that never came; offering the board again");
  }
  server->unclaimed = 0;
  return offer_board(server->tracker, &server->board, server->match, deadline);
}

static void keep_registered(Server* server) {
  double now = seconds_now();
  /* A board that has become free is offered at once. */
  int idle = server->tracker >= 0 && server->session.process == 0 && server->match[0] == '\0';
  if (server->tracker_name == NULL || (now < server->tracker_due && !idle)) return;
  int known = server->tracker >= 0;
  if (speak_to_tracker(server, now + TRACKER_S) == 0) {
    if (!known) say("registered with the tracker at %s", server->tracker_name);
    server->missed = 0;
  } else {
    drop_tracker(server);
    if (!stopping && known) say("the tracker at %s is gone", server->tracker_name);
    if (!stopping && !known && !server->missed)
      say("no tracker answers at %s; trying again every %d s", server->tracker_name, PING_S);
    server->missed |= !known;
  }
  server->tracker_due = seconds_now() + PING_S;
}

/* ---- the loop ---- */

static void attend(Server* server) {
  struct pollfd entries[MOST_GREETINGS + 2];
  Arrival arrival;
  while (!stopping) {
    keep_registered(server);
    watch_session(server);
    serve_next_in_line(server);
    if (stopping) break;
    /* A board that a session has just left is offered before anything is waited for. */
    double now = seconds_now(), end = fmin(now + 60, door_deadline(&server->door));
    int idle = server->tracker >= 0 && server->session.process == 0 && server->match[0] == '\0';
    if (server->tracker_name != NULL) end = fmin(end, idle ? now : server->tracker_due);
    if (server->session.process) end = fmin(end, fmin(now + 1, server->session.begin + server->session.seconds));
    int count = door_wait_for(&server->door, entries), tracker = -1;
    if (server->tracker >= 0) entries[tracker = count++] = (struct pollfd){server->tracker, POLLIN, 0};
    if (wait_until(entries, count, end + 0.01) <= 0) {
      for (int i = 0; i < count; ++i) entries[i].revents = 0;
    } else if (tracker >= 0 && entries[tracker].revents) {
      drop_tracker(server); /* it speaks only when asked: it hung up */
      say("the tracker at %s is gone", server->tracker_name);
    }
    /* Before any guest is sent away for a newcomer, and again for the newcomers. */
    while (door_arrival(&server->door, &arrival)) answer(server, &arrival);
    if (entries[0].revents) door_open(&server->door);
    while (door_arrival(&server->door, &arrival)) answer(server, &arrival);
  }
  if (server->session.process) end_session(server, 0, 0, "the device's server was stopped");
  drop_tracker(server);
  door_close(&server->door);
}

static int port_of(const char* text, const char* option) {
  char* end;
  long port = strtol(text, &end, 10);
  if (end == text || *end || port < 0 || port > 65535) die(2, "%s is %s and must be a port, 0 to 65535", option, text);
  return (int)port;
}

/* A name that needs no escape in JSON, nor anything else in the protocol. */
static int is_key(const char* text) {
  char shown[KEY_ROOM];
  if (*text == '\0' || strlen(text) >= sizeof shown || strpbrk(text, " :\"\\") != NULL) return 0;
  strcpy(shown, text);
  make_printable(shown);
  return strcmp(shown, text) == 0;
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
  static Server server = {.board = {.address = "null"}, .tracker = -1};
  Registration* board = &server.board;
  char host[HOST_ROOM] = "127.0.0.1", named[HOST_ROOM], why[WHY];
  char* rest;
  int port = 9090, end = 9200, option;
  while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
    switch (option) {
      case KEY:
        if (!is_key(optarg)) die(2, "--key is '%s' and must be a short name without spaces, colons and quotes", optarg);
        snprintf(board->key, sizeof board->key, "%s", optarg);
        break;
      case SECONDS:
        longest = strtod(optarg, &rest);
        if (*rest || rest == optarg || !(longest > 0 && longest < 1e9))
          die(2, "--session-seconds is %s and must be a number of seconds above 0", optarg);
        break;
      case TRACKER:
        server.tracker_name = optarg;
        if (parse_address(optarg, board->host, &board->port))
          die(2, "--tracker is '%s' and must be HOST:PORT, such as 192.168.1.10:%d", optarg, DEFAULT_TRACKER_PORT);
        break;
      case HOST:
        if (parse_host(optarg, host)) die(2, "--host is '%s' and must be a host's name or address, without a port", optarg);
        break;
      case PORT: port = port_of(optarg, "--port"); break;
      case PORT_END: end = port_of(optarg, "--port-end"); break;
      case CUSTOM:
        if (parse_host(optarg, named))
          die(2, "--custom-addr is '%s' and must be a host's name or address, without a port", optarg);
        snprintf(board->address, sizeof board->address, "\"%s\"", named);
        break;
      case HELP: return fputs(usage, stdout) < 0;
      case VERSION: return printf("enet-rpcd for apache-tvm %s, apache-tvm-ffi %s\n", APACHE_TVM, APACHE_TVM_FFI) < 0;
      default: return fputs(usage, stderr), 2;
    }
  }
  if (optind < argc || board->key[0] == '\0') return fputs(usage, stderr), 2;
  mind_signals(stop, wake);

  ThreadCount count;
  char message[WHY];
  if (default_threads("", NULL, &count, message, sizeof message)) die(2, "%s", message);
  snprintf(message, sizeof message, "%d", count.allowed);
  setenv("TVM_NUM_THREADS", message, 0); /* else TVM's pools have half the processors of x86-64 */
  if (getenv("TVM_THREAD_POOL_SPIN_COUNT") == NULL) setenv("TVM_THREAD_POOL_SPIN_COUNT", "4000", 0);
  /* The random fill that tuning asks for; nothing else does. */
  if (dlopen("libtvm_runtime_extra.so", RTLD_NOW | RTLD_GLOBAL) == NULL) say("tuning will not work: %s", dlerror());
  provide("tvm.rpc.server.workpath", workpath);
  provide("tvm.rpc.server.load_module", load_module);
  provide("tvm.rpc.server.upload", upload);
  provide("enet_tvm.device_facts", tell_facts);
  provide("enet_tvm.configure_threads", configure_threads);
  provide("enet_tvm.bind_cores", bind_session);
  provide("enet_tvm.open_gpu", open_gpu);
  provide("enet_tvm.time_call", time_call);
  provide("enet_tvm.last_output", last_output);
  provide("enet_tvm.time_kernels", time_kernels);
  provide("enet_tvm.keep_outputs", keep_outputs);
  provide("enet_tvm.kernel_output", kernel_output);
  provide("enet_tvm.find_files", find_files);
  provide("enet_tvm.read_file", read_file);
  remove_leftovers();
  server.door.listener = listen_at(host, &port, end, why, sizeof why);
  if (server.door.listener < 0) die(2, "%s", why);
  board->listening = port;
  say("%s listens at %s, port %d; RPC runs whatever code a client sends", board->key, host, port);
  attend(&server);
  say("stopped");
  _exit(0);
}

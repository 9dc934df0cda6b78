#include "address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
#define BLANKS " \t\r\n\v\f"

enum { LONGEST_LABEL = 63 };

/* An IPv6 address, of a link with its interface behind a percent sign. */
static int is_ipv6(const char* text) {
  char address[INET6_ADDRSTRLEN];
  struct in6_addr binary;
  size_t length = strcspn(text, "%");
  if (length >= sizeof address) return 0;
  snprintf(address, sizeof address, "%.*s", (int)length, text);
  const char* scope = text + length;
  if (*scope && (scope[1] == '\0' || scope[1 + strspn(scope + 1, LETTERS ".-")])) return 0;
  return inet_pton(AF_INET6, address, &binary) == 1;
}

static int is_name(const char* text) {
  if (*text == '\0' || text[strspn(text, LETTERS ".-")]) return 0;
  for (const char* label = text; *label;) {
    size_t length = strcspn(label, ".");
    if (length == 0 || length > LONGEST_LABEL) return 0;
    label += length + (label[length] == '.');
  }
  return 1;
}

/* The host in `length` characters. */
static int copy_host(const char* text, size_t length, char host[HOST_ROOM]) {
  int bracketed = length >= 2 && text[0] == '[' && text[length - 1] == ']';
  if (bracketed) ++text, length -= 2;
  if (length >= HOST_ROOM) return -1;
  memcpy(host, text, length);
  host[length] = '\0';
  return is_ipv6(host) || (!bracketed && is_name(host)) ? 0 : -1;
}

/* Without the blanks around it. */
static size_t stripped(const char** text) {
  *text += strspn(*text, BLANKS);
  size_t length = strlen(*text);
  while (length > 0 && strchr(BLANKS, (*text)[length - 1])) --length;
  return length;
}

int parse_host(const char* text, char host[HOST_ROOM]) {
  size_t length = stripped(&text);
  return copy_host(text, length, host);
}

int parse_address(const char* text, char host[HOST_ROOM], int* port) {
  size_t length = stripped(&text), digits = 0;
  *port = DEFAULT_TRACKER_PORT;
  if (copy_host(text, length, host) == 0) return 0; /* before a colon is looked for: an IPv6 address is full of them */
  while (digits < length && strchr("0123456789", text[length - 1 - digits])) ++digits;
  if (digits == 0 || digits > 5 || digits == length || text[length - 1 - digits] != ':') return -1;
  *port = atoi(text + length - digits);
  size_t before = length - digits - 1;
  int bare = before > 0 && text[0] != '[' && memchr(text, ':', before) != NULL; /* which is the address' last part then */
  return *port >= 1 && *port <= 65535 && !bare ? copy_host(text, before, host) : -1;
}

/* Ending a program with one sentence. */
#ifndef ENET_TVM_EXITS_H
#define ENET_TVM_EXITS_H

enum { WHY = 1024 }; /* room for a reason */

/* Print "enet-run: error: ..." on a line of its own and exit: with 2 for what the user can mend, else with 1. */
__attribute__((format(printf, 2, 3), noreturn)) void die(int code, const char* format, ...);

#endif

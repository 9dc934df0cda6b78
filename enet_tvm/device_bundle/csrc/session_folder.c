#define _GNU_SOURCE
#include "session_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER "enet-rpcd-"

enum { OPEN_AT_ONCE = 16 };

static const char* base(void) {
  const char* folder = getenv("TMPDIR");
  return folder != NULL && *folder ? folder : "/tmp";
}

static int erase(const char* path, const struct stat* entry, int kind, struct FTW* place) {
  (void)entry, (void)kind, (void)place;
  remove(path);
  return 0; /* go on with the rest */
}

static void erase_all(const char* path) { nftw(path, erase, OPEN_AT_ONCE, FTW_DEPTH | FTW_PHYS); }

/* The file that holds the lock of a folder; -1 and errno, 0 if another has it or has just removed the folder. */
static int lock_folder(const char* path) {
  char name[600];
  struct stat ours, theirs;
  snprintf(name, sizeof name, "%s/lock", path);
  int file = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (file < 0) {
    if (errno == ENOENT) errno = 0;
    return -1;
  }
  int error = 0;
  if (flock(file, LOCK_EX | LOCK_NB))
    error = errno == EWOULDBLOCK ? -1 : errno;
  else if (fstat(file, &ours) || lstat(name, &theirs) || ours.st_ino != theirs.st_ino || ours.st_dev != theirs.st_dev)
    error = -1;
  if (error == 0) return file;
  close(file);
  errno = error > 0 ? error : 0;
  return -1;
}

int make_session_folder(SessionFolder* folder) {
  do { /* until it is locked, a server that starts may take it for a leftover and remove it */
    if ((size_t)snprintf(folder->path, sizeof folder->path, "%s/" FOLDER "XXXXXX", base()) >= sizeof folder->path) {
      errno = ENAMETOOLONG;
      return -1;
    }
    if (mkdtemp(folder->path) == NULL) return -1;
    folder->lock = lock_folder(folder->path);
  } while (folder->lock < 0 && errno == 0);
  snprintf(folder->files, sizeof folder->files, "%s/files", folder->path);
  if (folder->lock >= 0 && mkdir(folder->files, 0700) == 0) return 0;
  int error = errno;
  erase_all(folder->path);
  if (folder->lock >= 0) close(folder->lock);
  errno = error;
  return -1;
}

void remove_session_folder(SessionFolder* folder) {
  erase_all(folder->path);
  close(folder->lock);
}

void remove_leftovers(void) {
  char pattern[512];
  struct stat entry;
  glob_t found;
  snprintf(pattern, sizeof pattern, "%s/" FOLDER "*", base());
  if (glob(pattern, 0, NULL, &found) != 0) return;
  for (size_t i = 0; i < found.gl_pathc; ++i) {
    const char* path = found.gl_pathv[i];
    /* In a folder that is everybody's, a link may lead anywhere. */
    if (lstat(path, &entry) || !S_ISDIR(entry.st_mode) || entry.st_uid != geteuid()) continue;
    int lock = lock_folder(path);
    if (lock < 0) continue;
    erase_all(path);
    close(lock);
  }
  globfree(&found);
}

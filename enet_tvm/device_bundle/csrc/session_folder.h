/* The folder where a session's uploads lie, and what is left of one whose server was killed. A file in it is locked for as long
   as its server lives: unlike the number of a process, a lock means the same in every container that sees the folder. */
#ifndef ENET_TVM_SESSION_FOLDER_H
#define ENET_TVM_SESSION_FOLDER_H

typedef struct {
  char path[512], files[520]; /* uploads go to `files` */
  int lock;
} SessionFolder;

/* Make a folder and lock it; -1 and errno if that is not possible. */
int make_session_folder(SessionFolder* folder);

/* Remove it with everything in it. */
void remove_session_folder(SessionFolder* folder);

/* Remove this user's session folders that nobody holds any more. */
void remove_leftovers(void);

#endif

/* Preloaded into a process: writes down every name it looks up, connection it opens, file or folder
 * it makes or writes to, and thread it starts, one a line, to the file that $WATCHER_LOG names.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void note(const char *what, const char *detail) {
  const char *log = getenv("WATCHER_LOG");
  char line[1024];
  const int size = snprintf(line, sizeof line, "%s %s\n", what, detail == NULL ? "" : detail);
  const long file =
      log == NULL ? -1 : syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT, 0600);
  if (file < 0 || size < 0) return;
  const size_t length = (size_t)size < sizeof line ? (size_t)size : sizeof line - 1;
  if (write((int)file, line, length) < 0) _exit(99);
  syscall(SYS_close, file);
}

#define NEXT(name, result, parameters)           \
  static result(*real) parameters;               \
  if (real == NULL) {                            \
    void *found = dlsym(RTLD_NEXT, #name);       \
    memcpy((void *)&real, &found, sizeof found); \
  }

int getaddrinfo(const char *restrict node, const char *restrict service,
                const struct addrinfo *restrict hints, struct addrinfo **restrict result) {
  NEXT(getaddrinfo, int, (const char *, const char *, const struct addrinfo *, struct addrinfo **))
  note("look-up", node);
  return real(node, service, hints, result);
}

int socket(int domain, int type, int protocol) {
  NEXT(socket, int, (int, int, int))
  if (domain != AF_UNIX) note("socket", "");
  return real(domain, type, protocol);
}

int connect(int descriptor, const struct sockaddr *address, socklen_t size) {
  NEXT(connect, int, (int, const struct sockaddr *, socklen_t))
  note("connect", "");
  return real(descriptor, address, size);
}

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
                   void *(*start)(void *), void *restrict argument) {
  NEXT(pthread_create, int, (pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))
  note("thread", "");
  return real(thread, attributes, start, argument);
}

#define OPEN(name, before, before_names)                                            \
  int name before {                                                                 \
    NEXT(name, int, before)                                                         \
    va_list rest;                                                                   \
    va_start(rest, flags);                                                          \
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                                                   \
    if (flags & (O_WRONLY | O_RDWR | O_CREAT)) note("write", path);                 \
    return real before_names;                                                       \
  }

OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))

#define FOPEN(name)                                                  \
  FILE *name(const char *restrict path, const char *restrict mode) { \
    NEXT(name, FILE *, (const char *, const char *))                 \
    if (strpbrk(mode, "wa+") != NULL) note("write", path);           \
    return real(path, mode);                                         \
  }

FOPEN(fopen)
FOPEN(fopen64)

int mkdir(const char *path, mode_t mode) {
  NEXT(mkdir, int, (const char *, mode_t))
  note("write", path);
  return real(path, mode);
}

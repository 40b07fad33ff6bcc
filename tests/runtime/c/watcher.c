/* Preloaded into a process and its children: writes down every name it looks up, connection it
 * opens, file or folder it makes or writes to (with its whole path), and thread it starts (with the
 * libraries that asked for it), one a line, to the file that $WATCHER_LOG names.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <limits.h>
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
  char line[2 * PATH_MAX];
  const int size = snprintf(line, sizeof line, "%s %s\n", what, detail == NULL ? "" : detail);
  const long file =
      log == NULL ? -1 : syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT, 0600);
  if (file < 0 || size < 0) return;
  const size_t length = (size_t)size < sizeof line ? (size_t)size : sizeof line - 1;
  if (write((int)file, line, length) < 0) _exit(99);
  syscall(SYS_close, file);
}

/* A path as the kernel would take it, from the root on. */
static void note_path(int folder, const char *path) {
  char link[64], base[PATH_MAX] = "", whole[2 * PATH_MAX];
  if (path == NULL) return;
  if (path[0] != '/') {
    snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
    const ssize_t size = readlink(link, base, sizeof base - 1);
    base[size < 0 ? 0 : size] = '\0';
  }
  snprintf(whole, sizeof whole, "%s%s%s", base, path[0] == '/' ? "" : "/", path);
  note("write", whole);
}

/* The libraries on the stack. */
static void note_thread(void) {
  void *frames[32];
  char names[PATH_MAX] = "";
  const char *last = "";
  const int count = backtrace(frames, 32);
  for (int i = 1; i < count; ++i) {
    Dl_info found;
    if (dladdr(frames[i], &found) == 0 || strcmp(found.dli_fname, last) == 0) continue;
    last = found.dli_fname;
    const char *slash = strrchr(last, '/');
    const size_t used = strlen(names);
    snprintf(names + used, sizeof names - used, " %s", slash == NULL ? last : slash + 1);
  }
  note("thread", names);
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

struct hostent *gethostbyname(const char *name) {
  NEXT(gethostbyname, struct hostent *, (const char *))
  note("look-up", name);
  return real(name);
}

int connect(int descriptor, const struct sockaddr *address, socklen_t size) {
  NEXT(connect, int, (int, const struct sockaddr *, socklen_t))
  if (address->sa_family != AF_UNIX) note("connect", "");
  return real(descriptor, address, size);
}

ssize_t sendto(int descriptor, const void *message, size_t size, int flags,
               const struct sockaddr *address, socklen_t length) {
  NEXT(sendto, ssize_t, (int, const void *, size_t, int, const struct sockaddr *, socklen_t))
  if (address != NULL && address->sa_family != AF_UNIX) note("connect", "");
  return real(descriptor, message, size, flags, address, length);
}

int pthread_create(pthread_t *restrict thread, const pthread_attr_t *restrict attributes,
                   void *(*start)(void *), void *restrict argument) {
  NEXT(pthread_create, int, (pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))
  note_thread();
  return real(thread, attributes, start, argument);
}

#define OPEN(name, before, before_names, folder)                                    \
  int name before {                                                                 \
    NEXT(name, int, before)                                                         \
    va_list rest;                                                                   \
    va_start(rest, flags);                                                          \
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
    va_end(rest);                                                                   \
    if (flags & (O_WRONLY | O_RDWR | O_CREAT)) note_path(folder, path);             \
    return real before_names;                                                       \
  }

OPEN(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode), folder)
OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode), folder)

#define FOPEN(name)                                                  \
  FILE *name(const char *restrict path, const char *restrict mode) { \
    NEXT(name, FILE *, (const char *, const char *))                 \
    if (strpbrk(mode, "wa+") != NULL) note_path(AT_FDCWD, path);     \
    return real(path, mode);                                         \
  }

FOPEN(fopen)
FOPEN(fopen64)

int mkdir(const char *path, mode_t mode) {
  NEXT(mkdir, int, (const char *, mode_t))
  note_path(AT_FDCWD, path);
  return real(path, mode);
}

int mkdirat(int folder, const char *path, mode_t mode) {
  NEXT(mkdirat, int, (int, const char *, mode_t))
  note_path(folder, path);
  return real(folder, path, mode);
}

#define MOVE(name)                                \
  int name(const char *from, const char *to) {    \
    NEXT(name, int, (const char *, const char *)) \
    note_path(AT_FDCWD, to);                      \
    return real(from, to);                        \
  }

MOVE(rename)
MOVE(link)
MOVE(symlink)

#define MAKE(name, parameters, arguments)     \
  int name parameters {                       \
    NEXT(name, int, parameters)               \
    const int made = real arguments;          \
    if (made >= 0) note_path(AT_FDCWD, path); \
    return made;                              \
  }

MAKE(mkstemp, (char *path), (path))
MAKE(mkstemp64, (char *path), (path))
MAKE(mkostemp, (char *path, int flags), (path, flags))
MAKE(mkostemp64, (char *path, int flags), (path, flags))

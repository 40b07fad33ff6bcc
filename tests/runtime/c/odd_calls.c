// Preloaded: reads and writes that come half way (ODD_SHORT), or a write with one bit turned on its
// way to the disk (ODD_FLIP: which one, from 1 on).
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static size_t most(size_t size) {
  return getenv("ODD_SHORT") != NULL && size > 1 ? size / 2 : size;
}

ssize_t read(int fd, void *to, size_t size) {
  ssize_t (*real)(int, void *, size_t);
  *(void **)&real = dlsym(RTLD_NEXT, "read");
  return real(fd, to, most(size));
}

ssize_t write(int fd, const void *from, size_t size) {
  static long count = 0;
  ssize_t (*real)(int, const void *, size_t);
  *(void **)&real = dlsym(RTLD_NEXT, "write");
  struct stat status;
  const char *flip = getenv("ODD_FLIP");
  if (flip != NULL && size > 0 && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) &&
      ++count == atol(flip)) {
    char *copy = malloc(size);
    if (copy == NULL) return -1;
    memcpy(copy, from, size);
    copy[size / 2] ^= 1;
    const ssize_t done = real(fd, copy, size);
    free(copy);
    return done;
  }
  return real(fd, from, most(size));
}

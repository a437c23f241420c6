// A library that is loaded before others (LD_PRELOAD) and has the disk below one folder be full,
// stall or fail, and the clock be another, while a file says so. Nobody needs to be root for it.
//
//   PENSTOCK_TRIAL_FOLDER    files below it are concerned
//   PENSTOCK_TRIAL_CONTROL   16 bytes that both sides map or read, see below
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WELL, FULL, STALLED, UNSYNCED };

struct control {
  _Atomic uint32_t mode;
  // How many calls met it; the trial sees by that that it is one.
  _Atomic uint32_t met;
  // Added to the time of day, in seconds.
  _Atomic int64_t offset;
};

static struct control *control;
static char folder[4096];
static size_t length;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("PENSTOCK_TRIAL_CONTROL");
  const char *below = getenv("PENSTOCK_TRIAL_FOLDER");
  if (!path || !below || strlen(below) >= sizeof folder) return;
  int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return;
  void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (mapped == MAP_FAILED) return;
  length = strlen(strcpy(folder, below));
  control = mapped;
}

static int is_below(const char *path) {
  return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static int concerns(int file) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return is_below(path);
}

// 0, or the number of the error that the call is to fail with.
static int meet(int sync) {
  uint32_t mode = atomic_load(&control->mode);
  if (mode == WELL || (mode == UNSYNCED && !sync)) return 0;
  atomic_fetch_add(&control->met, 1);
  while (mode == STALLED) {
    usleep(1000);
    mode = atomic_load(&control->mode);
  }
  if (mode == FULL) return ENOSPC;
  return mode == UNSYNCED && sync ? EIO : 0;
}

static int bad(int file, int sync) {
  if (!control || atomic_load(&control->mode) == WELL) return 0;
  int before = errno;
  int number = concerns(file) ? meet(sync) : 0;
  errno = number ? number : before;
  return number != 0;
}

#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t write(int file, const void *data, size_t size) {
  REAL(write);
  return bad(file, 0) ? -1 : real(file, data, size);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
  REAL(writev);
  return bad(file, 0) ? -1 : real(file, parts, count);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
  REAL(pwrite);
  return bad(file, 0) ? -1 : real(file, data, size, at);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
  REAL(pwrite64);
  return bad(file, 0) ? -1 : real(file, data, size, at);
}

int fsync(int file) {
  REAL(fsync);
  return bad(file, 1) ? -1 : real(file);
}

int fdatasync(int file) {
  REAL(fdatasync);
  return bad(file, 1) ? -1 : real(file);
}

int rename(const char *from, const char *to) {
  REAL(rename);
  if (control && atomic_load(&control->mode) != WELL && is_below(to)) {
    int number = meet(0);
    if (number) {
      errno = number;
      return -1;
    }
  }
  return real(from, to);
}

// Not through the table of the C library, which is not there yet when it is first asked.
int clock_gettime(clockid_t clock, struct timespec *time) {
  if (syscall(SYS_clock_gettime, clock, time) != 0) return -1;
  if (clock == CLOCK_REALTIME && control) time->tv_sec += atomic_load(&control->offset);
  return 0;
}

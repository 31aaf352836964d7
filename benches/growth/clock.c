// Preloaded into the gateway under callgrind: its clock runs as much slower as it runs itself, so that what it does by
// time (ticks, sweeps, parking) falls on as many requests as it does at full speed. A day ahead, so that
// nobody waits in the kernel for a moment that has already gone by there.
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { DAY = 86400 };
static const long long SECOND = 1000000000;
static long long start, slower = 1;

static long long now(void) {
  struct timespec time;
  syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &time);
  return time.tv_sec * SECOND + time.tv_nsec;
}

__attribute__((constructor)) static void begin(void) {
  const char *factor = getenv("CLOCK_SLOWER");
  slower = factor ? atoll(factor) : 1;
  start = now();
}

int clock_gettime(clockid_t clock, struct timespec *time) {
  if (clock != CLOCK_MONOTONIC) return syscall(SYS_clock_gettime, clock, time);
  long long shown = start + DAY * SECOND + (now() - start) / slower;
  *time = (struct timespec){shown / SECOND, shown % SECOND};
  return 0;
}

"""Steps the wall clock that a proxy's processes see, and nobody else's.

A library that is loaded ahead of libc (ld.so(8)) adds what a file says to CLOCK_REALTIME; the monotonic
clocks stay what they are, as in a real step. It is loaded by an /etc/ld.so.preload of the proxy's own mounts.
"""

import struct
import subprocess
from pathlib import Path
from typing import Final

_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static volatile long long *step;
static __attribute__((constructor)) void begin(void) {
  int file = open("/dev/net/clock", O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void *seen = mmap(0, sizeof *step, PROT_READ, MAP_SHARED, file, 0);
  if (seen != MAP_FAILED) step = seen;
  close(file);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
  int done = syscall(SYS_clock_gettime, clock, now);
  if (done == 0 && clock == CLOCK_REALTIME && step) now->tv_sec += *step;
  return done;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec seen;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &seen);
  now->tv_sec = seen.tv_sec;
  now->tv_usec = seen.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *into) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (into) *into = now.tv_sec;
  return now.tv_sec;
}
"""
_PRELOAD: Final = """
mkdir /dev/net/etc
cp /etc/resolv.conf /dev/net/etc/
echo /dev/net/clock.so > /dev/net/etc/ld.so.preload
mount -t overlay overlay -o lowerdir=/dev/net/etc:/etc /etc
"""


class WallClock:
    """To be given to `run_proxy` as ``before=clock.prepare``."""

    def __init__(self, directory: Path) -> None:
        """Build the library in ``directory``."""
        self._library = directory / "clock.so"
        self._file: Path | None = None
        command = ["gcc", "-O1", "-shared", "-fPIC", "-o", str(self._library), "-x", "c", "-"]
        subprocess.run(command, input=_SOURCE, text=True, check=True, timeout=60)

    def prepare(self, _: Path, devices: Path, mounts: int) -> None:
        """Have every program that starts in these mounts from now on see this clock."""
        (devices / "clock.so").write_bytes(self._library.read_bytes())
        (devices / "clock.so").chmod(0o755)
        self._file = devices / "clock"
        self._file.write_bytes(bytes(8))
        self._file.chmod(0o644)
        inside = ["nsenter", f"--mount=/proc/{mounts}/ns/mnt", "--wd=/", "sh", "-euc", _PRELOAD]
        subprocess.run(inside, check=True, timeout=30)

    def set(self, step_s: int) -> None:
        """Be so many seconds ahead of the machine's clock, or behind."""
        assert self._file is not None
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", step_s))

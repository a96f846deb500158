/* Faults on demand, for LD_PRELOAD: chosen calls of one function, on files whose path holds a text, go wrong.
 *
 *   FAULT=CALL,TEXT,NTH,TIMES,ACTION,VALUE   calls NTH to NTH + TIMES - 1, counted over all processes
 *   FAULT_STATE=FILE                         64 bytes of zeros, shared: calls, first process, faults so far, release
 *   FAULT_CLOCK=SECONDS                      every other look at the clock is so much later
 *   FAULT_TICK=SECONDS                       times of files are multiples of it, as those of FAT are of 2
 *
 * ACTION  error   the call fails with errno VALUE
 *         short   it reads or writes half of what it was asked for
 *         torn    so it does, and the first process, whose command this is, gets signal VALUE
 *         first   the first process gets signal VALUE, before the call is made
 *         self    the calling process does
 *         group   all processes of the group do
 *         wait    the call is made once `release` is set
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

enum { PASS, FAIL, HALF, TEAR };

struct state {
    _Atomic int64_t calls, first, faults, release;
};

static struct state *state;
static char call[16], text[256], action[16];
static long nth, times, value, later, tick;
static _Atomic long looks;

__attribute__((constructor)) static void begin(void) {
    const char *fault = getenv("FAULT"), *path = getenv("FAULT_STATE"), *clock = getenv("FAULT_CLOCK");
    const char *ticks = getenv("FAULT_TICK");
    if (clock) later = atol(clock);
    if (ticks) tick = atol(ticks);
    if (!fault || !path) return;
    if (sscanf(fault, "%15[^,],%255[^,],%ld,%ld,%15[^,],%ld", call, text, &nth, &times, action, &value) != 6) abort();
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return; /* another user's */
    void *shared = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared == MAP_FAILED) abort();
    int64_t nobody = 0;
    atomic_compare_exchange_strong(&((struct state *)shared)->first, &nobody, getpid());
    state = shared;
}

static int outcome(const char *name, const char *path) {
    if (!state || strcmp(name, call) || !path || !strstr(path, text)) return PASS;
    int64_t number = atomic_fetch_add(&state->calls, 1) + 1;
    if (number < nth || number >= nth + times) return PASS;
    atomic_fetch_add(&state->faults, 1);
    if (!strcmp(action, "error")) return FAIL;
    if (!strcmp(action, "short")) return HALF;
    if (!strcmp(action, "torn")) return TEAR;
    if (!strcmp(action, "first")) kill((pid_t)state->first, (int)value);
    if (!strcmp(action, "self")) kill(getpid(), (int)value);
    if (!strcmp(action, "group")) kill(0, (int)value);
    if (!strcmp(action, "wait"))
        for (int turn = 0; turn < 20000 && !state->release; turn++) usleep(1000);
    return PASS;
}

static int outcome_at(const char *name, int descriptor) {
    char link[32], path[4096];
    if (!state || strcmp(name, call)) return PASS;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t size = readlink(link, path, sizeof path - 1);
    path[size < 0 ? 0 : size] = 0;
    return outcome(name, path);
}

static int fail(void) {
    errno = (int)value;
    return -1;
}

static void tear(int how) {
    if (how == TEAR) kill((pid_t)state->first, (int)value);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        REAL(name); \
        return outcome("open", path) == FAIL ? fail() : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define TRANSFER(kind, name, type) \
    ssize_t name(int descriptor, type data, size_t count) { \
        REAL(name); \
        int how = outcome_at(kind, descriptor); \
        if (how == FAIL) return fail(); \
        ssize_t done = real(descriptor, data, how == PASS || count < 2 ? count : count / 2); \
        tear(how); \
        return done; \
    }
TRANSFER("read", read, void *)
TRANSFER("write", write, const void *)

#define TRANSFER_AT(kind, name, type, offset_type) \
    ssize_t name(int descriptor, type data, size_t count, offset_type offset) { \
        REAL(name); \
        int how = outcome_at(kind, descriptor); \
        if (how == FAIL) return fail(); \
        ssize_t done = real(descriptor, data, how == PASS || count < 2 ? count : count / 2, offset); \
        tear(how); \
        return done; \
    }
TRANSFER_AT("read", pread, void *, off_t)
TRANSFER_AT("read", pread64, void *, off64_t)
TRANSFER_AT("write", pwrite, const void *, off_t)
TRANSFER_AT("write", pwrite64, const void *, off64_t)

#define VECTOR_AT(name, offset_type) \
    ssize_t name(int descriptor, const struct iovec *vector, int count, offset_type offset) { \
        REAL(name); \
        int how = outcome_at("read", descriptor); \
        if (how == FAIL) return fail(); \
        struct iovec half = vector[0]; \
        half.iov_len = (half.iov_len + 1) / 2; \
        ssize_t done = how == PASS ? real(descriptor, vector, count, offset) : real(descriptor, &half, 1, offset); \
        tear(how); \
        return done; \
    }
VECTOR_AT(preadv, off_t)
VECTOR_AT(preadv64, off64_t)

#define OF_DESCRIPTOR(kind, name) \
    int name(int descriptor) { \
        REAL(name); \
        return outcome_at(kind, descriptor) == FAIL ? fail() : real(descriptor); \
    }
OF_DESCRIPTOR("sync", fsync)
OF_DESCRIPTOR("sync", fdatasync)

#define TRUNCATE(name, offset_type) \
    int name(int descriptor, offset_type size) { \
        REAL(name); \
        return outcome_at("truncate", descriptor) == FAIL ? fail() : real(descriptor, size); \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define ALLOCATE(name, offset_type) \
    int name(int descriptor, offset_type offset, offset_type size) { \
        REAL(name); \
        return outcome_at("allocate", descriptor) == FAIL ? (int)value : real(descriptor, offset, size); \
    }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

int flock(int descriptor, int operation) {
    REAL(flock);
    return outcome_at("lock", descriptor) == FAIL ? fail() : real(descriptor, operation);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return outcome("rename", from) == FAIL ? fail() : real(from, to);
}

int unlink(const char *path) {
    REAL(unlink);
    return outcome("unlink", path) == FAIL ? fail() : real(path);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(clock_gettime);
    int result = real(clock, now);
    if (later && clock == CLOCK_REALTIME && atomic_fetch_add(&looks, 1) % 2) now->tv_sec += later;
    return result;
}

static void coarsen(struct timespec *moment) {
    if (!tick) return;
    moment->tv_sec -= moment->tv_sec % tick;
    moment->tv_nsec = 0;
}

#define STATUS(name, parameters, given) \
    int name parameters { \
        REAL(name); \
        int result = real given; \
        if (!result) coarsen(&status->st_mtim), coarsen(&status->st_ctim); \
        return result; \
    }
STATUS(stat, (const char *path, struct stat *status), (path, status))
STATUS(lstat, (const char *path, struct stat *status), (path, status))
STATUS(fstat, (int descriptor, struct stat *status), (descriptor, status))
STATUS(fstatat, (int folder, const char *path, struct stat *status, int flags), (folder, path, status, flags))
STATUS(stat64, (const char *path, struct stat64 *status), (path, status))
STATUS(lstat64, (const char *path, struct stat64 *status), (path, status))
STATUS(fstat64, (int descriptor, struct stat64 *status), (descriptor, status))
STATUS(fstatat64, (int folder, const char *path, struct stat64 *status, int flags),
       (folder, path, status, flags))

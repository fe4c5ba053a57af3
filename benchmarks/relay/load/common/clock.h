/* Time, CPU time and memory: of this process, and of the server that is measured. */
#ifndef CLOCK_H
#define CLOCK_H
#include <stdint.h>

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;

#define SECOND_NS 1000000000ull

u64 now_ns(void);
/* CPU nanoseconds of this thread: what it did, and not how long it was kept waiting. */
u64 thread_ns(void);
/* CPU seconds of this process, user and system. */
double own_cpu_s(void);
/* CPU seconds that all cores of the machine were busy since it started. */
double machine_busy_s(void);

/* The server's processes, given once as "12,34". */
void watch_processes(const char *list);
double watched_cpu_s(void);
u64 watched_rss_kib(void);

#endif

#include "clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define WATCHED_MAX 64

static int watched[WATCHED_MAX];
static int watched_count;

static u64 read_clock(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (u64)t.tv_sec * SECOND_NS + (u64)t.tv_nsec;
}

u64 now_ns(void) { return read_clock(CLOCK_MONOTONIC); }

u64 thread_ns(void) { return read_clock(CLOCK_THREAD_CPUTIME_ID); }

double own_cpu_s(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

double machine_busy_s(void) {
    double user = 0, nice = 0, system = 0, idle, wait, irq = 0, soft = 0, steal = 0;
    FILE *file = fopen("/proc/stat", "r");
    if (!file) return 0;
    int got = fscanf(file, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", &user, &nice, &system, &idle,
                     &wait, &irq, &soft, &steal);
    fclose(file);
    return got == 8 ? (user + nice + system + irq + soft + steal) / sysconf(_SC_CLK_TCK) : 0;
}

void watch_processes(const char *list) {
    while (*list && watched_count < WATCHED_MAX) {
        char *end;
        watched[watched_count++] = (int)strtol(list, &end, 10);
        list = *end == ',' ? end + 1 : end;
        if (end == list && *end) break;
    }
}

/* utime and stime of /proc/PID/stat: the fields 14 and 15, counted after the name's last ')'. */
static double cpu_of(int pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = 0;
    unsigned long user = 0, system = 0;
    char *rest = strrchr(text, ')');
    if (rest)
        sscanf(rest + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system);
    return (double)(user + system) / sysconf(_SC_CLK_TCK);
}

double watched_cpu_s(void) {
    double sum = 0;
    for (int i = 0; i < watched_count; i++) sum += cpu_of(watched[i]);
    return sum;
}

u64 watched_rss_kib(void) {
    u64 sum = 0;
    for (int i = 0; i < watched_count; i++) {
        char path[64], line[256];
        snprintf(path, sizeof path, "/proc/%d/status", watched[i]);
        FILE *file = fopen(path, "r");
        if (!file) continue;
        while (fgets(line, sizeof line, file))
            if (!strncmp(line, "VmRSS:", 6)) sum += strtoull(line + 6, NULL, 10);
        fclose(file);
    }
    return sum;
}

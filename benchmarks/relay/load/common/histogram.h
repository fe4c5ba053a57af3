/* Latencies in nanoseconds, kept to 1.6 %: 64 steps between two powers of two. */
#ifndef HISTOGRAM_H
#define HISTOGRAM_H
#include "clock.h"

void latency_add(u64 ns);
u64 latency_count(void);
u64 latency_max(void);
/* The latency that a share (0 to 1) of all lies below; there is at least one. */
double latency_quantile(double share);

#endif

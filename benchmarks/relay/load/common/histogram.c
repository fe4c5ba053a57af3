#include "histogram.h"

#define STEPS 64
#define BUCKETS (STEPS * 60)

static u64 buckets[BUCKETS];
static u64 count, greatest;

void latency_add(u64 ns) {
    u64 at = ns;
    if (ns >= STEPS) {
        int power = 63 - __builtin_clzll(ns);
        at = (u64)(power - 5) * STEPS + ((ns >> (power - 6)) & (STEPS - 1));
    }
    buckets[at < BUCKETS ? at : BUCKETS - 1]++;
    count++;
    if (ns > greatest) greatest = ns;
}

u64 latency_count(void) { return count; }

u64 latency_max(void) { return greatest; }

/* The middle of a bucket. */
static double value_of(int bucket) {
    if (bucket < STEPS) return bucket;
    int power = bucket / STEPS + 5;
    u64 low = (u64)(STEPS + bucket % STEPS) << (power - 6);
    return (double)low + (double)(1ull << (power - 6)) / 2;
}

double latency_quantile(double share) {
    u64 wanted = (u64)(share * (double)count), seen = 0;
    if (wanted >= count) wanted = count - 1;
    for (int i = 0; i < BUCKETS; i++) {
        seen += buckets[i];
        if (seen > wanted) return value_of(i);
    }
    return (double)greatest;
}

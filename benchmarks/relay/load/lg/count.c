#include "count.h"

#include <stdio.h>
#include <string.h>

#include "common/histogram.h"

#define ERRORS_SHOWN 3
#define BYTES_SHOWN 200

totals total;
int is_measuring;
u64 latency_every = 1;

int note_delivery(connection *c) {
    c->received++;
    total.delivered++;
    if (c->flags & RECEIVES) total.at_receivers++;
    return is_measuring && c->received % latency_every == 0;
}

static int digit_of(u8 letter) {
    if (letter >= '0' && letter <= '9') return letter - '0';
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

/* The stamp after a mark, or 0 if this was no mark of ours. */
static u64 stamp_at(const u8 *mark, const u8 *end) {
    u64 stamp = 0;
    if (end - mark < 1 + DIGITS || *mark != MARK) return 0;
    for (int i = 1; i <= DIGITS; i++) {
        int digit = digit_of(mark[i]);
        if (digit < 0) return 0;
        stamp = stamp << 4 | (u64)digit;
    }
    return stamp;
}

void note_stamp(const u8 *mark, const u8 *end, u64 at_ns) {
    u64 stamp = stamp_at(mark, end);
    if (stamp && at_ns > stamp) latency_add(at_ns - stamp);
}

void note_latency(const u8 *message, u32 size, u64 at_ns) {
    static u32 usual; /* where the mark was in the message before */
    const u8 *end = message + size, *mark = message + usual;
    u64 stamp = usual < size ? stamp_at(mark, end) : 0;
    for (mark = message; !stamp && (mark = memchr(mark, MARK, (size_t)(end - mark))); mark++) {
        stamp = stamp_at(mark, end);
        usual = (u32)(mark - message);
    }
    if (stamp && at_ns > stamp) latency_add(at_ns - stamp);
}

void note_acknowledgement(connection *c) {
    c->acknowledged++;
    total.acknowledged++;
}

void note_error(const connection *c, const char *what, const u8 *bytes, u32 size) {
    total.errors++;
    if (total.errors > ERRORS_SHOWN) return;
    fprintf(stderr, "lg: connection %ld %s: ", (long)(c - plan.connections), what);
    for (u32 i = 0; i < size && i < BYTES_SHOWN; i++)
        fputc(bytes[i] >= ' ' && bytes[i] <= '~' ? bytes[i] : '.', stderr);
    fputc('\n', stderr);
}

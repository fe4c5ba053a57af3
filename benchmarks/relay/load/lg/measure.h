/* What was reached between two moments. */
#ifndef MEASURE_H
#define MEASURE_H
#include "wire.h"

typedef struct {
    u64 at, lost;
    double server_s, own_s, machine_s, idle_s;
    totals counted;
    u64 rss_kib;
} snapshot;

extern u64 lost;      /* messages that a server has dropped, as it seems */
extern double idle_s; /* CPU spent looking in vain, where nothing may be slept through */

snapshot look(void);
/* Fields of a JSON object, each with a comma before it. Rates and costs are those of one delivery, or
 * of one acknowledgement to a sender. */
void print_load(const snapshot *a, const snapshot *b, int counts_acks);

#endif

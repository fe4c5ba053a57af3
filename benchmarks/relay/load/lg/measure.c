#include "measure.h"

#include <stdio.h>

#include "common/histogram.h"

u64 lost;
double idle_s;

snapshot look(void) {
    return (snapshot){now_ns(), lost, watched_cpu_s(), own_cpu_s(), machine_busy_s(), idle_s,
                      total, watched_rss_kib()};
}

void print_load(const snapshot *a, const snapshot *b, int counts_acks) {
    double seconds = (double)(b->at - a->at) / SECOND_NS;
    double server = b->server_s - a->server_s, own = b->own_s - a->own_s;
    u64 delivered = b->counted.delivered - a->counted.delivered;
    u64 acknowledged = b->counted.acknowledged - a->counted.acknowledged;
    u64 sent = b->counted.sent - a->counted.sent;
    u64 units = counts_acks ? acknowledged : delivered;
    double busy = own - (b->idle_s - a->idle_s);
    double others = b->machine_s - a->machine_s - own - server;
    printf(",\"seconds\":%.3f,\"sent\":%lu,\"delivered\":%lu,\"acknowledged\":%lu", seconds, sent,
           delivered, acknowledged);
    printf(",\"per_s\":%.1f,\"server_cpu_s\":%.3f,\"server_share\":%.4f,\"cpu_us\":%.4f",
           (double)units / seconds, server, server / seconds,
           units ? server * 1e6 / (double)units : -1);
    printf(",\"generator_share\":%.4f,\"others_share\":%.4f,\"bytes_each\":%.1f,\"lost\":%lu",
           busy / seconds, others / seconds,
           units ? (double)(b->counted.bytes_in - a->counted.bytes_in) / (double)units : 0,
           b->lost - a->lost);
    if (latency_count())
        printf(",\"p50_us\":%.1f,\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f",
               latency_quantile(.5) / 1e3, latency_quantile(.99) / 1e3,
               latency_quantile(.999) / 1e3, (double)latency_max() / 1e3);
    printf(",\"rss_begin_kib\":%lu,\"rss_end_kib\":%lu", a->rss_kib, b->rss_kib);
}

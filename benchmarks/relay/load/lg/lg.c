/* lg: a TLS load generator in one thread that speaks no protocol of its own.
 *
 *     lg PLAN --port N --pids 12,34 --mode window|rate|storm|drain ...
 *
 * A plan says how each connection logs in, what one message looks like, and how deliveries are told
 * from the rest. A message's body starts with '^' and the time in 16 hexadecimal digits, from which
 * a receiver knows how long it took. Prints one line of JSON.
 *
 * window: as many as may be outstanding (--window), as fast as they go. --flow says what outstanding
 *         means: group (deliveries to all receivers), ack (the sender's acknowledgements), both (the
 *         slower of acknowledgement and delivery).
 * rate:   --rate messages a second; the time is counted from when a message was due.
 * storm:  log in, settle, close, and come back all at once.
 * drain:  take in what waits, --target deliveries. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "connection.h"
#include "measure.h"
#include "wire.h"

#define STALL_NS (5 * SECOND_NS)
#define LOGIN_PATIENCE_NS (120 * SECOND_NS)
#define SENT_AT_ONCE 64
#define MANY 1000 /* connections: from here on their buffers are released when idle */

static struct {
    const char *mode, *flow;
    int port, window, coalesces, barrier, inflight;
    u64 rate, target;
    double warm_s, measure_s, drain_s;
} options = {"window", "group", 0, 256, 0, 0, 50, 0, 0, 1, 5, 0};

static connection **senders;
static u32 sender_count, receiver_count, next_sender;

/* --- logging in ------------------------------------------------------------------------------ */

static void give_up_connecting(void) {
    u32 in_state[DEAD + 1] = {0};
    for (u32 i = 0; i < plan.count; i++) in_state[plan.connections[i].state]++;
    fprintf(stderr, "lg: not all logged in: %u unused, %u connecting, %u in TLS, %u in login, "
            "%u ready, %u dead\n", in_state[UNUSED], in_state[CONNECTING], in_state[IN_TLS],
            in_state[IN_LOGIN], in_state[READY], in_state[DEAD]);
    exit(3);
}

static void come_back(u64 now) {
    for (u32 i = 0; i < plan.count && dead_count; i++) {
        connection *c = &plan.connections[i];
        if (c->state != DEAD || now < c->back_at) continue;
        drop_connection(c);
        start_connection(c, options.port);
    }
}

static void log_all_in(u32 inflight) {
    u64 began = now_ns();
    u32 next = 0;
    while (ready_count < plan.count) {
        while (next < plan.count && next - ready_count - dead_count < inflight)
            start_connection(&plan.connections[next++], options.port);
        handle_events(100);
        u64 now = now_ns();
        if (comes_back) come_back(now);
        if (now - began > LOGIN_PATIENCE_NS || (dead_count && !comes_back))
            give_up_connecting();
    }
}

/* Each client pings by its own clock since it came: one after the other, not all at once. */
static void ping_when_due(u64 now) {
    static u64 began, pinged;
    if (!plan.ping.size) return;
    if (!began) began = now;
    u64 due = (now - began) * plan.count / (plan.ping_ms * 1000000ull);
    if (due - pinged > plan.count) pinged = due - plan.count;
    for (; pinged < due; pinged++) {
        connection *c = &plan.connections[pinged % plan.count];
        if (c->state != READY) continue;
        queue_bytes(c, plan.ping.bytes, plan.ping.size);
        flush_connection(c);
    }
}

static void wait_for(double seconds) {
    u64 end = now_ns() + (u64)(seconds * SECOND_NS);
    for (u64 now; (now = now_ns()) < end;) {
        ping_when_due(now);
        handle_events(50);
    }
}

/* --- sending --------------------------------------------------------------------------------- */

static int is_free(const connection *c) { return c->state == READY && c->out_done == c->out_end; }

static void send_messages(connection *c, long count, u64 stamp) {
    while (count-- > 0 && c->state == READY) {
        queue_message(c, stamp);
        if (!options.coalesces) flush_connection(c);
    }
    if (c->state == READY) flush_connection(c);
}

static connection *next_free_sender(void) {
    for (u32 i = 0; i < sender_count; i++) {
        connection *c = senders[next_sender++ % sender_count];
        if (is_free(c)) return c;
    }
    return NULL;
}

static u64 group_done(void) { return total.at_receivers / (receiver_count ? receiver_count : 1); }

static int counts_acks(void) { return !strcmp(options.flow, "ack"); }

static u64 done_of(const connection *c) {
    if (counts_acks()) return c->acknowledged;
    u64 received = plan.connections[c->peer].received;
    return received < c->acknowledged ? received : c->acknowledged;
}

static void fill_group(void) {
    long room = options.window - (long)(total.sent - lost - group_done());
    u64 now = now_ns();
    for (long i = 0; i < room; i++) {
        connection *c = next_free_sender();
        if (!c) break;
        if (i % 16 == 15) now = now_ns();
        send_messages(c, 1, now);
    }
}

static void fill_senders(void) {
    for (u32 i = 0; i < sender_count; i++) {
        connection *c = senders[i];
        if (!is_free(c)) continue;
        long room = options.window - (long)(c->sent - c->forgiven - done_of(c));
        if (room > 0) send_messages(c, room, now_ns());
    }
}

/* What a server has dropped never comes: count it as lost, and go on. */
static void forgive_when_stalled(u64 now) {
    static u64 last_progress, last_count;
    u64 count = total.at_receivers + total.acknowledged;
    if (count != last_count || !last_progress) {
        last_count = count;
        last_progress = now;
    }
    if (now - last_progress < STALL_NS) return;
    last_progress = now;
    if (!strcmp(options.flow, "group")) {
        lost = total.sent - group_done();
        return;
    }
    for (u32 i = 0; i < sender_count; i++) {
        connection *c = senders[i];
        u64 missing = c->sent - c->forgiven - done_of(c);
        c->forgiven += missing;
        lost += missing;
    }
}

static void fill_window(u64 now) {
    if (!strcmp(options.flow, "group"))
        fill_group();
    else
        fill_senders();
    forgive_when_stalled(now);
}

/* Send what is due; a message's time is when it was due, not when it could be sent. */
static int send_due(u64 began, u64 now) {
    static u64 count;
    int sent = 0;
    for (; sender_count && sent < SENT_AT_ONCE; sent++) {
        u64 due = began + (u64)((double)count * SECOND_NS / (double)options.rate);
        if (due > now) break;
        connection *c = senders[next_sender++ % sender_count];
        if (c->state == READY) {
            queue_message(c, due);
            flush_connection(c);
        }
        count++;
    }
    return sent;
}

/* --- measuring ------------------------------------------------------------------------------- */

/* Until everything that was sent has arrived everywhere, or for `drain_s` seconds. */
static void drain(void) {
    u64 end = now_ns() + (u64)(options.drain_s * SECOND_NS);
    int has_acks = plan.ack_head.size && strcmp(options.flow, "group");
    while (now_ns() < end) {
        if (total.delivered >= total.expected && (!has_acks || total.acknowledged >= total.sent))
            break;
        handle_events(10);
    }
    printf(",\"all_sent\":%lu,\"all_expected\":%lu,\"all_delivered\":%lu,\"all_acknowledged\":%lu",
           total.sent, total.expected, total.delivered, total.acknowledged);
}

static void run_load(void) {
    snapshot before = {0};
    if (!options.rate) latency_every = 16;
    u64 began = now_ns(), from = began + (u64)(options.warm_s * SECOND_NS);
    u64 until = from + (u64)(options.measure_s * SECOND_NS);
    for (;;) {
        u64 now = now_ns(), worked = options.rate ? thread_ns() : 0;
        int happened = 0;
        if (!is_measuring && now >= from) {
            is_measuring = 1;
            before = look();
        }
        if (now >= until) break;
        if (options.rate)
            happened += send_due(began, now);
        else
            fill_window(now);
        ping_when_due(now);
        happened += handle_events(options.rate ? 0 : 1);
        if (options.rate && !happened) idle_s += (double)(thread_ns() - worked) / SECOND_NS;
        if (dead_count > plan.count / 2) break;
    }
    snapshot after = look();
    is_measuring = 0;
    print_load(&before, &after, counts_acks());
    drain();
}

static void run_drain(void) {
    snapshot before = look();
    u64 until = before.at + (u64)(options.measure_s * SECOND_NS);
    is_measuring = 1;
    while (total.delivered < options.target && now_ns() < until && !dead_count) {
        while (open_count < plan.count) start_connection(&plan.connections[open_count], options.port);
        handle_events(10);
    }
    snapshot after = look();
    print_load(&before, &after, counts_acks());
}

static void run_storm(void) {
    for (u32 i = 0; i < plan.count; i++) drop_connection(&plan.connections[i]);
    wait_for(2);
    snapshot before = look();
    comes_back = 1;
    log_all_in(plan.count);
    snapshot after = look();
    double seconds = (double)(after.at - before.at) / SECOND_NS;
    wait_for(1);
    printf(",\"storm_s\":%.3f,\"storm_cpu_ms_each\":%.4f,\"storm_lost\":%u,\"storm_own_share\":%.4f",
           seconds, (after.server_s - before.server_s) * 1e3 / plan.count, lost_count,
           (after.own_s - before.own_s) / seconds);
}

/* --- the program ----------------------------------------------------------------------------- */

static void read_option(const char *name, const char *value) {
    if (!strcmp(name, "--mode")) options.mode = value;
    else if (!strcmp(name, "--flow")) options.flow = value;
    else if (!strcmp(name, "--port")) options.port = atoi(value);
    else if (!strcmp(name, "--pids")) watch_processes(value);
    else if (!strcmp(name, "--window")) options.window = atoi(value);
    else if (!strcmp(name, "--rate")) options.rate = strtoull(value, NULL, 10);
    else if (!strcmp(name, "--target")) options.target = strtoull(value, NULL, 10);
    else if (!strcmp(name, "--warm")) options.warm_s = atof(value);
    else if (!strcmp(name, "--measure")) options.measure_s = atof(value);
    else if (!strcmp(name, "--drain")) options.drain_s = atof(value);
    else if (!strcmp(name, "--inflight")) options.inflight = atoi(value);
    else if (!strcmp(name, "--coalesce")) options.coalesces = atoi(value);
    else if (!strcmp(name, "--barrier")) options.barrier = atoi(value);
    else {
        fprintf(stderr, "lg: there is no option %s\n", name);
        exit(2);
    }
}

static void sort_out_senders(void) {
    senders = calloc(plan.count + 1, sizeof *senders);
    for (u32 i = 0; i < plan.count; i++) {
        connection *c = &plan.connections[i];
        if (c->flags & RECEIVES) receiver_count++;
        if (c->flags & SENDS) senders[sender_count++] = c;
    }
}

static void allow_many_files(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* Several generators begin together: each says that it is ready, and waits for a line. */
static void meet_the_others(void) {
    if (!options.barrier) return;
    char line[8];
    fprintf(stderr, "ready\n");
    if (!fgets(line, sizeof line, stdin)) exit(2);
}

static void log_in_and_settle(void) {
    u64 rss = watched_rss_kib(), began = now_ns();
    double server = watched_cpu_s(), own = own_cpu_s();
    log_all_in((u32)options.inflight);
    double seconds = (double)(now_ns() - began) / SECOND_NS;
    server = watched_cpu_s() - server;
    own = own_cpu_s() - own;
    wait_for(plan.count >= MANY ? 2 : 1);
    u64 settled = watched_rss_kib();
    printf(",\"login_s\":%.3f,\"login_cpu_ms_each\":%.4f,\"login_own_ms_each\":%.4f"
           ",\"rss_empty_kib\":%lu,\"rss_kib\":%lu,\"kib_each\":%.2f", seconds,
           server * 1e3 / plan.count, own * 1e3 / plan.count, rss, settled,
           ((double)settled - (double)rss) / plan.count);
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "usage: lg PLAN [--OPTION VALUE]...\n");
        return 2;
    }
    for (int i = 2; i + 1 < count; i += 2) read_option(arguments[i], arguments[i + 1]);
    signal(SIGPIPE, SIG_IGN);
    allow_many_files();
    read_plan(arguments[1]);
    sort_out_senders();
    set_up_tls(plan.count > MANY);
    printf("{\"connections\":%u", plan.count);
    if (!strcmp(options.mode, "drain")) {
        run_drain();
    } else {
        log_in_and_settle();
        meet_the_others();
        if (!strcmp(options.mode, "storm")) run_storm();
        if (!strcmp(options.mode, "window") || !strcmp(options.mode, "rate")) run_load();
    }
    printf(",\"dead\":%u,\"errors\":%lu}\n", dead_count, total.errors);
    return 0;
}

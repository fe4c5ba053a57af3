/* A plan file (benchmarks/relay/plans.py writes it): who connects, logs in how, and sends what. */
#ifndef PLAN_H
#define PLAN_H
#include <openssl/ssl.h>

#include "common/clock.h"

typedef struct {
    u32 size;
    u8 *bytes;
} blob;

/* How a server's bytes are cut into messages. */
enum framing {
    BY_MARK = 0,  /* not at all: every '^' is a delivery */
    SALTLINE = 1, /* u32 length, body; a delivery's, or several's, starts with `delivery_head` */
    MQTT = 2,
};

enum flag { RECEIVES = 1, SENDS = 2, ACKNOWLEDGES = 4 };

/* SEND: send, then wait for `wait`. SIGN: send a hello, take one frame (the challenge), and send
 * `before`, 64 bytes of signature, `after`; then wait. */
enum step_kind { SEND = 0, SIGN = 1 };

typedef struct {
    u32 kind;
    blob send, wait;
    blob seed, payload, spki, before, after; /* of SIGN */
} step;

/* Where a message has a number that grows with every message: big-endian, `width` bytes,
 * `base` + (how many were sent, modulo `modulo` unless that is 0). */
typedef struct {
    u32 offset, width;
    u64 base, modulo;
} spot;

enum state { UNUSED, CONNECTING, IN_TLS, IN_LOGIN, READY, DEAD };

typedef struct connection {
    u32 flags, fanout; /* fanout: how many deliveries one message of this sender makes */
    int peer;          /* who receives what this one sends, or -1 */
    u32 step_count;
    step *steps;
    blob prefix, suffix;
    u32 body_size, spot_count;
    spot *spots;

    int fd;
    enum state state;
    SSL *tls;
    u32 step;
    u8 *out; /* what waits to be written: out[out_done..out_end] */
    u32 out_end, out_done, out_size;
    u8 *part; /* received, and not a whole message yet */
    u32 part_end, part_size;
    u64 *numbers; /* deliveries to acknowledge with the next reply */
    u32 number_count, number_size;
    int is_write_blocked, is_signed;
    u32 losses;
    u64 back_at; /* when one that was lost connects again */
    u64 received, sent, acknowledged, forgiven;
} connection;

typedef struct {
    u32 framing;
    u32 holds_entries; /* whether such a body is that of a room's entries, each one delivery */
    blob delivery_head, ack_head, error_head, reply_before, reply_after, ping;
    u32 ping_ms;
    u32 count;
    connection *connections;
} plan_file;

extern plan_file plan;

/* Fills `plan`; ends the program with a sentence if the file cannot be read. */
void read_plan(const char *path);

#endif

/* What comes in: deliveries, acknowledgements and errors, counted; and what goes out. */
#ifndef WIRE_H
#define WIRE_H
#include "plan.h"

typedef struct {
    u64 delivered;      /* to anybody, authors included */
    u64 at_receivers;   /* to connections that are there to receive */
    u64 acknowledged;   /* to senders */
    u64 sent, expected; /* messages, and the deliveries that they make */
    u64 bytes_in, errors;
} totals;

extern totals total;
extern int is_measuring;
extern u64 latency_every; /* of so many deliveries to a connection, one is looked at closely */

/* Take `size` bytes that came at `at_ns`; appends to `c->out` what acknowledges them. */
void take_bytes(connection *c, const u8 *bytes, u32 size, u64 at_ns);
/* Put bytes behind what waits to be written. */
void queue_bytes(connection *c, const u8 *bytes, u32 size);
/* Put the next message of a sender there, stamped with a time. */
void queue_message(connection *c, u64 stamp_ns);
/* While logging in: whether a message with these bytes came; it goes, with all before it. */
int take_token(connection *c, const blob *token);
/* After the challenge: the signed login. Returns 0 until a whole frame has come. */
int queue_login(connection *c, const step *s);

#endif

/* What came in, counted: deliveries with their latency, acknowledgements, errors. */
#ifndef COUNT_H
#define COUNT_H
#include "plan.h"

#define MARK '^'
#define DIGITS 16 /* of a stamp: nanoseconds in hexadecimal, after the mark */

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

/* Count a delivery; whether this one is looked at closely. */
int note_delivery(connection *c);
/* The latency of the stamp that stands right here, if one does. */
void note_stamp(const u8 *mark, const u8 *end, u64 at_ns);
/* The latency of the first stamp in a message. */
void note_latency(const u8 *message, u32 size, u64 at_ns);
void note_acknowledgement(connection *c);
/* Count an error, and print the first few: what happened, and the bytes that say it. */
void note_error(const connection *c, const char *what, const u8 *bytes, u32 size);

#endif

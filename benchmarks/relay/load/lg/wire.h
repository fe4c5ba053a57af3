/* What comes in, cut into messages and counted; and what goes out. */
#ifndef WIRE_H
#define WIRE_H
#include "count.h"

/* Take `size` bytes that came at `at_ns`; appends to `c->out` what acknowledges them. */
void take_bytes(connection *c, const u8 *bytes, u32 size, u64 at_ns);
/* Drop the first of the bytes that wait in `c->part`. */
void drop_from_part(connection *c, u32 size);
/* Put bytes behind what waits to be written. */
void queue_bytes(connection *c, const u8 *bytes, u32 size);
/* Put the next message of a sender there, stamped with a time. */
void queue_message(connection *c, u64 stamp_ns);
/* While logging in: whether a message with these bytes came; it goes, with all before it. */
int take_token(connection *c, const blob *token);

u32 read_u32(const u8 *bytes);
void write_number(u8 *into, u32 width, u64 value);
int starts_with(const u8 *bytes, u32 size, const blob *head);

#endif

#define _GNU_SOURCE
#include "wire.h"

#include <stdlib.h>
#include <string.h>

#include "saltline.h"

#define MESSAGE_MAX 65536

static const char digits[] = "0123456789abcdef";

u32 read_u32(const u8 *b) {
    return (u32)b[0] << 24 | (u32)b[1] << 16 | (u32)b[2] << 8 | b[3];
}

void write_number(u8 *into, u32 width, u64 value) {
    for (u32 i = 0; i < width; i++) into[i] = (u8)(value >> (8 * (width - 1 - i)));
}

int starts_with(const u8 *bytes, u32 size, const blob *head) {
    return head->size && size >= head->size && !memcmp(bytes, head->bytes, head->size);
}

/* --- out ------------------------------------------------------------------------------------- */

void queue_bytes(connection *c, const u8 *bytes, u32 size) {
    if (c->out_done == c->out_end) c->out_done = c->out_end = 0;
    if (c->out_end + size > c->out_size) {
        c->out_size = (c->out_end + size) * 2;
        c->out = realloc(c->out, c->out_size);
    }
    memcpy(c->out + c->out_end, bytes, size);
    c->out_end += size;
}

void queue_message(connection *c, u64 stamp_ns) {
    static u8 message[MESSAGE_MAX];
    u8 *at = message;
    memcpy(at, c->prefix.bytes, c->prefix.size);
    at += c->prefix.size;
    memset(at, 'x', c->body_size);
    at[0] = MARK;
    for (int i = 0; i < DIGITS; i++) at[1 + i] = (u8)digits[(stamp_ns >> (60 - 4 * i)) & 15];
    at += c->body_size;
    memcpy(at, c->suffix.bytes, c->suffix.size);
    at += c->suffix.size;
    for (u32 i = 0; i < c->spot_count; i++) {
        const spot *s = &c->spots[i];
        u64 count = s->modulo ? c->sent % s->modulo : c->sent;
        write_number(message + s->offset, s->width, s->base + count);
    }
    queue_bytes(c, message, (u32)(at - message));
    c->sent++;
    total.sent++;
    total.expected += c->fanout;
}

/* --- in: MQTT 3.1.1 -------------------------------------------------------------------------- */

static void take_packet(connection *c, u8 first, const u8 *body, u32 size, u64 at_ns) {
    u32 type = first >> 4, qos = (first >> 1) & 3;
    if (type == 3) {
        if (note_delivery(c)) note_latency(body, size, at_ns);
        u32 at = 2 + ((u32)body[0] << 8 | body[1]);
        if (qos && c->flags & ACKNOWLEDGES && at + 2 <= size) {
            u8 puback[4] = {0x40, 2, body[at], body[at + 1]};
            queue_bytes(c, puback, sizeof puback);
        }
    } else if (type == 4) {
        note_acknowledgement(c);
    }
}

static u32 take_packets(connection *c, const u8 *bytes, u32 size, u64 at_ns) {
    u32 done = 0;
    while (size - done >= 2) {
        u32 length = 0, at = done + 1, shift = 0;
        while (at < size && shift < 28) {
            length |= (u32)(bytes[at] & 0x7f) << shift;
            shift += 7;
            if (!(bytes[at++] & 0x80)) break;
        }
        if (bytes[at - 1] & 0x80 || size - at < length) break;
        take_packet(c, bytes[done], bytes + at, length, at_ns);
        done = at + length;
    }
    return done;
}

/* --- in: anything else ----------------------------------------------------------------------- */

static u32 take_marks(connection *c, const u8 *bytes, u32 size, u64 at_ns) {
    const u8 *end = bytes + size, *at = bytes;
    int counts_acks = c->flags & SENDS && plan.ack_head.size;
    u8 wanted = counts_acks ? plan.ack_head.bytes[0] : MARK;
    for (; (at = memchr(at, wanted, (size_t)(end - at))); at++) {
        if (counts_acks)
            note_acknowledgement(c);
        else if (note_delivery(c))
            note_stamp(at, end, at_ns);
    }
    return size;
}

static u32 take_whole(connection *c, const u8 *bytes, u32 size, u64 at_ns) {
    if (plan.framing == SALTLINE) return take_frames(c, bytes, size, at_ns);
    if (plan.framing == MQTT) return take_packets(c, bytes, size, at_ns);
    return take_marks(c, bytes, size, at_ns);
}

static void keep_part(connection *c, const u8 *bytes, u32 size) {
    if (c->part_end + size > c->part_size) {
        c->part_size = (c->part_end + size) * 2;
        c->part = realloc(c->part, c->part_size);
    }
    memcpy(c->part + c->part_end, bytes, size);
    c->part_end += size;
}

void drop_from_part(connection *c, u32 size) {
    if (!size) return;
    c->part_end -= size;
    memmove(c->part, c->part + size, c->part_end);
}

/* The size of the first message, or 0 if it has not come as a whole. */
static u32 message_size(const u8 *bytes, u32 size) {
    if (plan.framing == SALTLINE) {
        u32 whole = size < 4 ? 0 : 4 + read_u32(bytes);
        return whole <= size ? whole : 0;
    }
    if (size < 2 || bytes[1] & 0x80) return 0; /* MQTT: no long packet comes before the login */
    return size >= 2u + bytes[1] ? 2u + bytes[1] : 0;
}

int take_token(connection *c, const blob *token) {
    if (plan.framing == BY_MARK) {
        u8 *at = memmem(c->part, c->part_end, token->bytes, token->size);
        if (at) drop_from_part(c, (u32)(at - c->part) + token->size);
        return at != NULL;
    }
    for (u32 size; (size = message_size(c->part, c->part_end));) {
        int is_it = memmem(c->part, size, token->bytes, token->size) != NULL;
        u32 head = plan.framing == SALTLINE ? 4 : 0;
        if (!is_it && starts_with(c->part + head, size - head, &plan.error_head))
            note_error(c, "was refused", c->part + head, size - head);
        drop_from_part(c, size);
        if (is_it) return 1;
    }
    return 0;
}

void take_bytes(connection *c, const u8 *bytes, u32 size, u64 at_ns) {
    if (c->state == IN_LOGIN) {
        keep_part(c, bytes, size);
        return;
    }
    if (!c->part_end) {
        u32 done = take_whole(c, bytes, size, at_ns);
        if (done < size) keep_part(c, bytes + done, size - done);
        return;
    }
    keep_part(c, bytes, size);
    drop_from_part(c, take_whole(c, c->part, c->part_end, at_ns));
}

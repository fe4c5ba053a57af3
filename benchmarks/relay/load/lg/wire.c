#define _GNU_SOURCE
#include "wire.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/histogram.h"

#define MARK '^'
#define DIGITS 16 /* of a stamp: nanoseconds in hexadecimal, after the mark */
#define ACKNOWLEDGE_MAX 1024
#define ERRORS_SHOWN 3
#define MESSAGE_MAX 65536

totals total;
int is_measuring;
u64 latency_every = 1;

static const char digits[] = "0123456789abcdef";

static u32 read_u32(const u8 *b) {
    return (u32)b[0] << 24 | (u32)b[1] << 16 | (u32)b[2] << 8 | b[3];
}

static void write_number(u8 *into, u32 width, u64 value) {
    for (u32 i = 0; i < width; i++) into[i] = (u8)(value >> (8 * (width - 1 - i)));
}

static void drop_from_part(connection *c, u32 size);

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

/* H(lp(hello) || lp(challenge)); a frame is the same bytes as lp(its body). */
static void hash_conversation(const blob *hello, const u8 *challenge, u32 size, u8 hash[32]) {
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    EVP_DigestInit_ex(md, EVP_sha256(), NULL);
    EVP_DigestUpdate(md, hello->bytes, hello->size);
    EVP_DigestUpdate(md, challenge, size);
    EVP_DigestFinal_ex(md, hash, NULL);
    EVP_MD_CTX_free(md);
}

int queue_login(connection *c, const step *s) {
    if (c->part_end < 4 || c->part_end < 4 + read_u32(c->part)) return 0;
    u32 frame = 4 + read_u32(c->part), size = 0;
    u8 payload[512], signature[64];
    size_t signature_size = sizeof signature;
    memcpy(payload, s->payload.bytes, s->payload.size);
    size += s->payload.size;
    hash_conversation(&s->send, c->part, frame, payload + size);
    size += 32;
    memcpy(payload + size, s->spki.bytes, s->spki.size);
    size += s->spki.size;
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, s->seed.bytes, 32);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    EVP_DigestSignInit(md, NULL, NULL, NULL, key);
    EVP_DigestSign(md, signature, &signature_size, payload, size);
    EVP_MD_CTX_free(md);
    EVP_PKEY_free(key);
    queue_bytes(c, s->before.bytes, s->before.size);
    queue_bytes(c, signature, sizeof signature);
    queue_bytes(c, s->after.bytes, s->after.size);
    drop_from_part(c, frame);
    return 1;
}

/* --- in: what a message means ---------------------------------------------------------------- */

static int is_looked_at(const connection *c) {
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

static void note_latency(const u8 *message, u32 size, u64 at_ns) {
    static u32 usual; /* where the mark was in the message before */
    const u8 *end = message + size, *mark = message + usual;
    u64 stamp = usual < size ? stamp_at(mark, end) : 0;
    for (mark = message; !stamp && (mark = memchr(mark, MARK, (size_t)(end - mark))); mark++) {
        stamp = stamp_at(mark, end);
        usual = (u32)(mark - message);
    }
    if (stamp && at_ns > stamp) latency_add(at_ns - stamp);
}

static void note_delivery(connection *c) {
    c->received++;
    total.delivered++;
    if (c->flags & RECEIVES) total.at_receivers++;
}

static void note_number(connection *c, u64 number) {
    if (c->number_count == c->number_size) {
        c->number_size = c->number_size * 2 + 16;
        c->numbers = realloc(c->numbers, c->number_size * sizeof *c->numbers);
    }
    c->numbers[c->number_count++] = number;
}

static int starts_with(const u8 *bytes, u32 size, const blob *head) {
    return head->size && size >= head->size && !memcmp(bytes, head->bytes, head->size);
}

static void show_error(const connection *c, const u8 *body, u32 size) {
    total.errors++;
    if (total.errors > ERRORS_SHOWN) return;
    fprintf(stderr, "lg: connection %ld was refused: ", (long)(c - plan.connections));
    for (u32 i = 0; i < size && i < 200; i++)
        fputc(body[i] >= ' ' && body[i] <= '~' ? body[i] : '.', stderr);
    fputc('\n', stderr);
}

/* --- in: Saltline ---------------------------------------------------------------------------- */

/* msgpack's integers above zero. */
static u64 read_integer(const u8 *b, u32 size) {
    static const u32 widths[] = {1, 2, 4, 8};
    if (!size) return 0;
    if (b[0] < 0x80) return b[0];
    if (b[0] < 0xcc || b[0] > 0xcf || size < 1 + widths[b[0] - 0xcc]) return 0;
    u64 value = 0;
    for (u32 i = 1; i <= widths[b[0] - 0xcc]; i++) value = value << 8 | b[i];
    return value;
}

static void acknowledge_numbers(connection *c) {
    for (u32 done = 0; done < c->number_count;) {
        u32 count = c->number_count - done;
        if (count > ACKNOWLEDGE_MAX) count = ACKNOWLEDGE_MAX;
        u32 size = plan.reply_before.size + 3 + 9 * count + plan.reply_after.size;
        u8 head[7];
        write_number(head, 4, size);
        queue_bytes(c, head, 4);
        queue_bytes(c, plan.reply_before.bytes, plan.reply_before.size);
        head[0] = 0xdc; /* an array with a u16 count, of u64 */
        write_number(head + 1, 2, count);
        queue_bytes(c, head, 3);
        for (u32 i = 0; i < count; i++) {
            u8 number[9] = {0xcf};
            write_number(number + 1, 8, c->numbers[done + i]);
            queue_bytes(c, number, sizeof number);
        }
        queue_bytes(c, plan.reply_after.bytes, plan.reply_after.size);
        done += count;
    }
    c->number_count = 0;
}

static void take_frame(connection *c, const u8 *body, u32 size, u64 at_ns) {
    if (starts_with(body, size, &plan.delivery_head)) {
        note_delivery(c);
        if (is_looked_at(c)) note_latency(body, size, at_ns);
        if (c->flags & ACKNOWLEDGES) {
            u32 head = plan.delivery_head.size;
            note_number(c, read_integer(body + head, size - head));
        }
    } else if (starts_with(body, size, &plan.ack_head)) {
        c->acknowledged++;
        total.acknowledged++;
    } else if (starts_with(body, size, &plan.error_head)) {
        show_error(c, body, size);
    }
}

/* How many bytes were whole frames. */
static u32 take_frames(connection *c, const u8 *bytes, u32 size, u64 at_ns) {
    u32 done = 0;
    while (size - done >= 4) {
        u32 length = read_u32(bytes + done);
        if (size - done - 4 < length) break;
        take_frame(c, bytes + done + 4, length, at_ns);
        done += 4 + length;
    }
    if (c->number_count) acknowledge_numbers(c);
    return done;
}

/* --- in: MQTT 3.1.1 -------------------------------------------------------------------------- */

static void take_packet(connection *c, u8 first, const u8 *body, u32 size, u64 at_ns) {
    u32 type = first >> 4, qos = (first >> 1) & 3;
    if (type == 3) {
        note_delivery(c);
        if (is_looked_at(c)) note_latency(body, size, at_ns);
        u32 at = 2 + ((u32)body[0] << 8 | body[1]);
        if (qos && c->flags & ACKNOWLEDGES && at + 2 <= size) {
            u8 puback[4] = {0x40, 2, body[at], body[at + 1]};
            queue_bytes(c, puback, sizeof puback);
        }
    } else if (type == 4) {
        c->acknowledged++;
        total.acknowledged++;
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
        if (counts_acks) {
            c->acknowledged++;
            total.acknowledged++;
            continue;
        }
        note_delivery(c);
        if (!is_looked_at(c)) continue;
        u64 stamp = stamp_at(at, end);
        if (stamp && at_ns > stamp) latency_add(at_ns - stamp);
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

static void drop_from_part(connection *c, u32 size) {
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
            show_error(c, c->part + head, size - head);
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

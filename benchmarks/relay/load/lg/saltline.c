#include "saltline.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

#define ACKNOWLEDGE_MAX 1024
#define ENTRY_FIELDS 3  /* the author's index, the statement, the signature */
#define BEFORE_ENTRIES 3 /* the room, the first number, the authors */

/* --- out ------------------------------------------------------------------------------------- */

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

static void note_number(connection *c, u64 number) {
    if (c->number_count == c->number_size) {
        c->number_size = c->number_size * 2 + 16;
        c->numbers = realloc(c->numbers, c->number_size * sizeof *c->numbers);
    }
    c->numbers[c->number_count++] = number;
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

/* --- in: msgpack ----------------------------------------------------------------------------- */

/* What is not read yet; nothing is read behind the end. */
typedef struct {
    const u8 *at, *end;
} cursor;

/* A number, bytes or a string of `size` bytes; or an array of `size` values, which follow it. */
typedef struct {
    enum { NUMBER, BYTES, STRING, ARRAY } kind;
    u32 size;
    const u8 *bytes;
} value;

static u64 read_number(const u8 *bytes, u32 width) {
    u64 number = 0;
    for (u32 i = 0; i < width; i++) number = number << 8 | bytes[i];
    return number;
}

/* Take a value, of an array its header. Returns 0 if it is cut short, or of another kind. */
static int take_value(cursor *c, value *v) {
    if (c->at == c->end) return 0;
    u8 first = *c->at++;
    u32 width = 0; /* of a size that stands by itself */
    switch (first) {
    case 0x00 ... 0x7f:
    case 0xe0 ... 0xff: v->kind = NUMBER, v->size = 1, c->at--; break;
    case 0x90 ... 0x9f: v->kind = ARRAY, v->size = first & 0xf; break;
    case 0xa0 ... 0xbf: v->kind = STRING, v->size = first & 0x1f; break;
    case 0xc4 ... 0xc6: v->kind = BYTES, width = 1u << (first - 0xc4); break;
    case 0xcc ... 0xd3: v->kind = NUMBER, v->size = 1u << (first & 3); break;
    case 0xd9 ... 0xdb: v->kind = STRING, width = 1u << (first - 0xd9); break;
    case 0xdc ... 0xdd: v->kind = ARRAY, width = 2u << (first - 0xdc); break;
    default: return 0;
    }
    if (width > c->end - c->at) return 0;
    if (width) v->size = (u32)read_number(c->at, width);
    v->bytes = c->at += width;
    u32 held = v->kind == ARRAY ? 0 : v->size;
    if (held > c->end - c->at) return 0;
    c->at += held;
    return 1;
}

/* Skip values, with all that they hold. */
static int skip_values(cursor *c, u64 count) {
    value v;
    for (; count; count--) {
        if (!take_value(c, &v)) return 0;
        if (v.kind == ARRAY) count += v.size;
    }
    return 1;
}

/* --- in: frames ------------------------------------------------------------------------------ */

static int take_entry(connection *c, cursor *rest, u64 at_ns) {
    value entry, author, statement, signature;
    if (!take_value(rest, &entry) || entry.kind != ARRAY || entry.size != ENTRY_FIELDS) return 0;
    if (!take_value(rest, &author) || author.kind != NUMBER) return 0;
    if (!take_value(rest, &statement) || statement.kind != BYTES) return 0;
    if (!take_value(rest, &signature) || signature.kind != BYTES) return 0;
    if (note_delivery(c)) note_latency(statement.bytes, statement.size, at_ns);
    return 1;
}

/* Each entry is one delivery. What cannot be read is an error, and the entries before it count. */
static void take_entries(connection *c, const u8 *body, u32 size, u64 at_ns) {
    cursor rest = {body + plan.delivery_head.size, body + size};
    value entries;
    int is_read = skip_values(&rest, BEFORE_ENTRIES) && take_value(&rest, &entries) &&
                  entries.kind == ARRAY;
    for (u32 i = 0; is_read && i < entries.size; i++) is_read = take_entry(c, &rest, at_ns);
    if (!is_read || rest.at != rest.end) note_error(c, "got what cannot be read", body, size);
}

/* One delivery in a frame; who acknowledges them does that by the number with which it begins. */
static void take_delivery(connection *c, const u8 *body, u32 size, u64 at_ns) {
    cursor rest = {body + plan.delivery_head.size, body + size};
    value number;
    if (c->flags & ACKNOWLEDGES) {
        if (!take_value(&rest, &number) || number.kind != NUMBER) {
            note_error(c, "got what cannot be read", body, size);
            return;
        }
        note_number(c, read_number(number.bytes, number.size));
    }
    if (note_delivery(c)) note_latency(body, size, at_ns);
}

static void take_frame(connection *c, const u8 *body, u32 size, u64 at_ns) {
    if (starts_with(body, size, &plan.delivery_head)) {
        if (plan.holds_entries)
            take_entries(c, body, size, at_ns);
        else
            take_delivery(c, body, size, at_ns);
    } else if (starts_with(body, size, &plan.ack_head)) {
        note_acknowledgement(c);
    } else if (starts_with(body, size, &plan.error_head)) {
        note_error(c, "was refused", body, size);
    }
}

u32 take_frames(connection *c, const u8 *bytes, u32 size, u64 at_ns) {
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

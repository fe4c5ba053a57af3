#include "plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC "SLPLAN1\n"

plan_file plan;

static void need(FILE *file, void *into, size_t size) {
    if (size && fread(into, 1, size, file) != size) {
        fprintf(stderr, "lg: the plan is cut short\n");
        exit(2);
    }
}

static u32 take_u32(FILE *file) {
    u8 b[4];
    need(file, b, sizeof b);
    return (u32)b[0] << 24 | (u32)b[1] << 16 | (u32)b[2] << 8 | b[3];
}

static u64 take_u64(FILE *file) {
    u64 high = take_u32(file);
    return high << 32 | take_u32(file);
}

static blob take_blob(FILE *file) {
    blob b = {take_u32(file), NULL};
    b.bytes = malloc(b.size + 1);
    need(file, b.bytes, b.size);
    b.bytes[b.size] = 0;
    return b;
}

static step take_step(FILE *file) {
    step s = {.kind = take_u32(file)};
    s.send = take_blob(file);
    s.wait = take_blob(file);
    if (s.kind == SIGN) {
        s.seed = take_blob(file);
        s.payload = take_blob(file);
        s.spki = take_blob(file);
        s.before = take_blob(file);
        s.after = take_blob(file);
    }
    return s;
}

static void take_message(FILE *file, connection *c) {
    c->prefix = take_blob(file);
    c->body_size = take_u32(file);
    c->suffix = take_blob(file);
    c->spot_count = take_u32(file);
    c->spots = calloc(c->spot_count + 1, sizeof *c->spots);
    for (u32 i = 0; i < c->spot_count; i++) {
        spot *s = &c->spots[i];
        s->offset = take_u32(file);
        s->width = take_u32(file);
        s->base = take_u64(file);
        s->modulo = take_u64(file);
    }
}

static void take_connection(FILE *file, connection *c) {
    c->flags = take_u32(file);
    c->peer = (int)take_u32(file);
    c->fanout = take_u32(file);
    c->step_count = take_u32(file);
    c->steps = calloc(c->step_count + 1, sizeof *c->steps);
    for (u32 i = 0; i < c->step_count; i++) c->steps[i] = take_step(file);
    if (c->flags & SENDS) take_message(file, c);
}

void read_plan(const char *path) {
    char magic[sizeof MAGIC - 1];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(2);
    }
    need(file, magic, sizeof magic);
    if (memcmp(magic, MAGIC, sizeof magic)) {
        fprintf(stderr, "lg: %s is not a plan\n", path);
        exit(2);
    }
    plan.framing = take_u32(file);
    plan.delivery_head = take_blob(file);
    plan.holds_entries = take_u32(file);
    plan.ack_head = take_blob(file);
    plan.error_head = take_blob(file);
    plan.reply_before = take_blob(file);
    plan.reply_after = take_blob(file);
    plan.ping_ms = take_u32(file);
    plan.ping = take_blob(file);
    plan.count = take_u32(file);
    plan.connections = calloc(plan.count, sizeof *plan.connections);
    for (u32 i = 0; i < plan.count; i++) take_connection(file, &plan.connections[i]);
    fclose(file);
}

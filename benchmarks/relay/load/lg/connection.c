#define _GNU_SOURCE
#include "connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "saltline.h"
#include "wire.h"

#define RECORD_BYTES 16384
#define READ_BYTES 65536
#define EVENTS 512
#define LOGIN_MAX_BYTES (1 << 22)
#define DEATHS_SHOWN 3
#define FIRST_ADDRESS 0x7f010000u /* 127.1.0.0 */

u32 ready_count, dead_count, open_count, lost_count;
int comes_back;
static SSL_CTX *context;
static int poller;

void set_up_tls(int releases_buffers) {
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set1_groups_list(context, "X25519");
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_read_ahead(context, 1);
    if (!releases_buffers) SSL_CTX_set_default_read_buffer_len(context, READ_BYTES);
    long mode = SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER;
    SSL_CTX_set_mode(context, mode | (releases_buffers ? SSL_MODE_RELEASE_BUFFERS : 0));
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    poller = epoll_create1(0);
}

static void watch(connection *c, u32 events, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &event);
}

static void forget(connection *c, enum state state) {
    if (c->state == READY) ready_count--;
    SSL_free(c->tls);
    close(c->fd);
    c->tls = NULL;
    c->state = state;
    open_count--;
}

/* As a client waits that was turned away: 1, 2, 4 ... 60 s, each shortened at random by up to a
 * quarter (docs/protocol.md, What ends the connection). */
static u64 wait_before_return(u32 losses) {
    u64 wait = losses < 7 ? SECOND_NS << (losses - 1) : 60 * SECOND_NS;
    return wait - (u64)((double)wait / 4 * rand() / RAND_MAX);
}

static void lose(connection *c, const char *why) {
    if (c->state == DEAD) return;
    dead_count++;
    lost_count++;
    c->back_at = now_ns() + wait_before_return(++c->losses);
    if (!comes_back && dead_count <= DEATHS_SHOWN) {
        const char *detail = ERR_reason_error_string(ERR_peek_last_error());
        fprintf(stderr, "lg: connection %ld is lost: %s (%s)\n", (long)(c - plan.connections), why,
                detail ? detail : "no detail");
    }
    forget(c, DEAD);
}

void drop_connection(connection *c) {
    if (c->state == UNUSED) return;
    if (c->state == DEAD) {
        dead_count--;
        c->state = UNUSED;
    } else {
        forget(c, UNUSED);
    }
    c->step = c->out_end = c->out_done = c->part_end = c->number_count = 0;
    c->is_write_blocked = 0;
}

/* Every client has an address of its own in 127.0.0.0/8, as a crowd has. */
static struct sockaddr_in address_of(const connection *c) {
    u32 number = (u32)(c - plan.connections);
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(FIRST_ADDRESS + (number / 250 << 8) + 1 + number % 250);
    return from;
}

static void give_up(const char *what) {
    perror(what);
    exit(2);
}

void start_connection(connection *c, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct sockaddr_in from = address_of(c);
    int one = 1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) give_up("lg: socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) give_up("lg: bind");
    if (connect(c->fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS)
        give_up("lg: connect");
    c->tls = SSL_new(context);
    SSL_set_fd(c->tls, c->fd);
    SSL_set_tlsext_host_name(c->tls, "localhost");
    c->state = CONNECTING;
    open_count++;
    watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
}

void flush_connection(connection *c) {
    while (c->out_done < c->out_end) {
        u32 size = c->out_end - c->out_done;
        ERR_clear_error();
        int done = SSL_write(c->tls, c->out + c->out_done,
                             (int)(size < RECORD_BYTES ? size : RECORD_BYTES));
        if (done > 0) {
            c->out_done += (u32)done;
            continue;
        }
        if (SSL_get_error(c->tls, done) != SSL_ERROR_WANT_WRITE) {
            lose(c, "writing failed");
        } else if (!c->is_write_blocked) {
            c->is_write_blocked = 1;
            watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
        }
        return;
    }
    if (c->is_write_blocked) {
        c->is_write_blocked = 0;
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
    }
}

/* --- login ----------------------------------------------------------------------------------- */

static void begin_step(connection *c) {
    while (c->step < c->step_count) {
        const step *s = &c->steps[c->step];
        if (s->send.size) queue_bytes(c, s->send.bytes, s->send.size);
        if (s->kind == SIGN || s->wait.size) break;
        c->step++;
    }
    if (c->step == c->step_count && c->state == IN_LOGIN) {
        c->state = READY;
        ready_count++;
    }
    flush_connection(c);
}

static void advance_login(connection *c, u64 at_ns) {
    while (c->state == IN_LOGIN) {
        step *s = &c->steps[c->step];
        if (s->kind == SIGN && !c->is_signed) {
            if (!queue_login(c, s)) break;
            c->is_signed = 1;
            flush_connection(c);
        }
        if (c->state != IN_LOGIN || !take_token(c, &s->wait)) break;
        c->is_signed = 0;
        c->step++;
        begin_step(c);
    }
    if (c->state == READY && c->part_end) take_bytes(c, c->part, 0, at_ns);
    if (c->part_end > LOGIN_MAX_BYTES) lose(c, "the login takes too many bytes");
}

/* --- events ---------------------------------------------------------------------------------- */

/* Whether the connection is further than that. */
static int is_connected(connection *c, u32 events) {
    int error = 0;
    socklen_t size = sizeof error;
    if (c->state != CONNECTING) return 1;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error)
        lose(c, strerror(error));
    else if (events & EPOLLOUT)
        c->state = IN_TLS;
    return c->state == IN_TLS;
}

static int is_encrypted(connection *c) {
    if (c->state != IN_TLS) return 1;
    ERR_clear_error();
    int done = SSL_connect(c->tls);
    if (done == 1) {
        c->state = IN_LOGIN;
        c->is_signed = 0;
        watch(c, EPOLLIN, EPOLL_CTL_MOD);
        begin_step(c);
        return c->state != DEAD;
    }
    int want = SSL_get_error(c->tls, done);
    if (want == SSL_ERROR_WANT_READ || want == SSL_ERROR_WANT_WRITE)
        watch(c, want == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT, EPOLL_CTL_MOD);
    else
        lose(c, "the handshake failed");
    return 0;
}

static void read_connection(connection *c) {
    static u8 buffer[READ_BYTES];
    u64 at_ns = 0;
    do {
        ERR_clear_error();
        int size = SSL_read(c->tls, buffer, sizeof buffer);
        if (size <= 0) {
            int want = SSL_get_error(c->tls, size);
            if (want == SSL_ERROR_WANT_READ || want == SSL_ERROR_WANT_WRITE) break;
            lose(c, want == SSL_ERROR_ZERO_RETURN ? "the server closed it" : "reading failed");
            return;
        }
        if (!at_ns) at_ns = now_ns();
        total.bytes_in += (u64)size;
        take_bytes(c, buffer, (u32)size, at_ns);
        if (c->state == IN_LOGIN) advance_login(c, at_ns);
        if (c->state == DEAD) return;
    } while (SSL_has_pending(c->tls));
    if (c->out_done < c->out_end) flush_connection(c);
}

int handle_events(int timeout_ms) {
    static struct epoll_event events[EVENTS];
    int count = epoll_wait(poller, events, EVENTS, timeout_ms);
    for (int i = 0; i < count; i++) {
        connection *c = events[i].data.ptr;
        if (c->state == DEAD || c->state == UNUSED) continue;
        if (!is_connected(c, events[i].events) || !is_encrypted(c)) continue;
        if (events[i].events & EPOLLOUT) flush_connection(c);
        if (c->state != DEAD) read_connection(c);
    }
    return count;
}

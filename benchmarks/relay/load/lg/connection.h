/* One TLS connection: connect, handshake, login script, and then bytes both ways. */
#ifndef CONNECTION_H
#define CONNECTION_H
#include "plan.h"

/* lost_count: how many were ever lost; dead_count: those that are now. */
extern u32 ready_count, dead_count, open_count, lost_count;
extern int comes_back; /* whether who is lost comes back later, so that it is not worth a word */

void set_up_tls(int releases_buffers);
void start_connection(connection *c, int port);
void flush_connection(connection *c);
/* Close without a word, and be ready for another `start_connection`. */
void drop_connection(connection *c);
/* Wait at most `timeout_ms` for something to happen, and deal with it; how much happened. */
int handle_events(int timeout_ms);

#endif

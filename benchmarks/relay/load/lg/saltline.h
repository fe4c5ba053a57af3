/* Saltline's frames: u32 length, and a msgpack array whose first bytes say what it is. */
#ifndef SALTLINE_H
#define SALTLINE_H
#include "plan.h"

/* Take all frames that are whole; how many bytes they were. */
u32 take_frames(connection *c, const u8 *bytes, u32 size, u64 at_ns);
/* After the challenge: the signed login. Returns 0 until a whole frame has come. */
int queue_login(connection *c, const step *s);

#endif

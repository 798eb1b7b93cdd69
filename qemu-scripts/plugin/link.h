/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The connection to the recorder, and the thread that sends to it and hears from it. */
#ifndef MMIO_LINK_H
#define MMIO_LINK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "wire.h"

/* What the recorder wants; replaced as a whole. */
struct ranges {
    uint32_t serial;
    bool recording;
    uint32_t count;
    struct wire_range at[];
};

/* NULL until the recorder has sent some. To be looked at between vcpu_enter and vcpu_leave. */
extern struct ranges *_Atomic link_ranges;
/* Somebody takes the records. */
extern atomic_bool link_up;
/* A vCPU whose buffer is full goes on, and what it does is lost. */
extern atomic_bool link_counts;

/* Connects and is welcomed, or says on stderr why not and returns -1. */
int link_open(const char *socket_path, const char *target);
/* A vCPU's buffer should be emptied soon. */
void link_wake(void);
/* Sends all that there is, says farewell, and ends the thread. */
void link_close(void);

#endif

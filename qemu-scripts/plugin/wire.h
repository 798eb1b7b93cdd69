/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the plugin and the recorder say to each other over a Unix stream socket. All numbers are
 * little-endian; the structs below have no padding, and are sent as they lie in memory.
 *
 * The plugin connects and says HELLO; the recorder answers WELCOME or REFUSED. The recorder sends
 * RANGES, then and whenever it wants others; the plugin answers RANGES_TAKEN in the stream: no
 * record behind it was chosen by older ranges. At least every 10 ms come the records of all vCPUs,
 * and a TICK: what happened before its time has been sent. FAREWELL is the plugin's last word.
 *
 * Each access that the ranges want has a number of its vCPU, counted up from 0 as long as QEMU
 * runs. One that could not be sent leaves a gap: so loss of any kind shows, and how much it was.
 *
 * Its twin is src/sources/plugin/wire.ts; test/golden/plugin holds both to the same bytes.
 */
#ifndef MMIO_WIRE_H
#define MMIO_WIRE_H

#include <stdint.h>

#define WIRE_VERSION 1
#define WIRE_MAGIC "MMIOPLUG"
/* A longer message is not one of ours. */
#define WIRE_MAX_BODY (1024 * 1024)
#define WIRE_MAX_RANGES 4096

enum wire_type {
    WIRE_HELLO = 1,
    WIRE_RECORDS = 2,
    WIRE_TICK = 3,
    WIRE_RANGES_TAKEN = 4,
    WIRE_FAREWELL = 5,
    WIRE_WELCOME = 16,
    WIRE_REFUSED = 17, /* The body is text: why. */
    WIRE_RANGES = 18,
};

struct wire_head {
    uint32_t type;
    uint32_t length; /* Of the body, in bytes. */
};

struct wire_hello {
    char magic[8];
    uint32_t version;
    uint32_t record_bytes;
    char target[16]; /* QEMU's name of it, such as x86_64; zeroes behind it. */
    uint32_t pid;
    uint32_t max_vcpus;
};

enum wire_flags {
    WIRE_WRITE = 1,
    /* A part of an access over two pages that do not lie side by side in guest-physical memory. */
    WIRE_PART = 2,
};

struct wire_record {
    uint64_t time_ns; /* CLOCK_REALTIME, as QEMU's log has it. */
    uint64_t pc;      /* Guest-virtual address of the instruction. */
    uint64_t gpa;
    uint64_t value_lo;
    uint64_t value_hi; /* Of an access of 16 bytes. */
    uint32_t number;   /* Of this vCPU's accesses, modulo 2^32. */
    uint16_t vcpu;
    uint8_t width; /* Bytes: 1, 2, 4, 8, 16. */
    uint8_t flags; /* enum wire_flags */
};

struct wire_tick {
    uint64_t time_ns;
};

struct wire_ranges_taken {
    uint32_t serial;
    uint32_t zero;
};

/* The body of FAREWELL: for each vCPU the number that its next access would have had. */

enum wire_overflow {
    WIRE_WAIT = 0,  /* A vCPU whose buffer is full waits. */
    WIRE_COUNT = 1, /* It goes on, and the loss shows as a gap. */
};

struct wire_welcome {
    uint32_t version;
    uint32_t overflow; /* enum wire_overflow */
};

/* Head of RANGES; `count` times struct wire_range follows, sorted, not overlapping. */
struct wire_ranges {
    uint32_t serial;
    uint32_t recording; /* 0: number the accesses, and do not send them. */
    uint32_t count;
    uint32_t zero;
};

struct wire_range {
    uint64_t start;
    uint64_t last; /* The last address that belongs to it: all of memory is 0 to 2^64 - 1. */
};

_Static_assert(sizeof(struct wire_head) == 8, "no padding");
_Static_assert(sizeof(struct wire_hello) == 40, "no padding");
_Static_assert(sizeof(struct wire_record) == 48, "no padding");
_Static_assert(sizeof(struct wire_ranges) == 16, "no padding");
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the wire is little-endian, and this host is not: nobody has needed the conversion yet"
#endif

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Prints one message of each type, with a value of its own in each field: what the recorder in
 * TypeScript must read, and write, in the same way. `make golden >test/golden/plugin/wire.bin`
 */
#include <stdio.h>
#include <string.h>

#include "wire.h"

static void put(uint32_t type, const void *body, size_t length)
{
    struct wire_head head = { type, (uint32_t)length };

    fwrite(&head, sizeof(head), 1, stdout);
    fwrite(body, 1, length, stdout);
}

int main(void)
{
    const struct wire_hello hello = {
        .magic = { 'M', 'M', 'I', 'O', 'P', 'L', 'U', 'G' },
        .version = WIRE_VERSION,
        .record_bytes = sizeof(struct wire_record),
        .target = "x86_64",
        .pid = 4242,
        .max_vcpus = 3,
    };
    const struct wire_record records[] = {
        {
            .time_ns = 1795392285924324017u,
            .pc = 0xffffffffc02183ba,
            .gpa = 0xfeb80f00,
            .value_lo = 0x28,
            .number = 0,
            .vcpu = 0,
            .width = 4,
            .flags = WIRE_WRITE,
        },
        {
            .time_ns = 1795392285924324918u,
            .pc = 0x400123,
            .gpa = 0x380000000010,
            .value_lo = 0x1122334455667788,
            .value_hi = 0x99aabbccddeeff00,
            .number = 0xffffffff,
            .vcpu = 2,
            .width = 16,
            .flags = 0,
        },
        {
            .time_ns = 1795392285924325000u,
            .pc = 0x10001,
            .gpa = 0xe1000fff,
            .value_lo = 0x80,
            .number = 7,
            .vcpu = 1,
            .width = 1,
            .flags = WIRE_WRITE | WIRE_PART,
        },
    };
    const struct wire_tick tick = { 1795392285924400000u };
    const struct wire_ranges_taken taken = { 5, 0 };
    const uint32_t farewell[] = { 1, 8, 0 };
    const struct wire_welcome welcome = { WIRE_VERSION, WIRE_COUNT };
    const char refused[] = "the recorder wants another";
    struct {
        struct wire_ranges head;
        struct wire_range at[2];
    } ranges = {
        { .serial = 5, .recording = 1, .count = 2 },
        { { 0xe1000000, 0xe10fffff }, { 0x380000000000, UINT64_MAX } },
    };

    put(WIRE_HELLO, &hello, sizeof(hello));
    put(WIRE_RECORDS, records, sizeof(records));
    put(WIRE_TICK, &tick, sizeof(tick));
    put(WIRE_RANGES_TAKEN, &taken, sizeof(taken));
    put(WIRE_FAREWELL, farewell, sizeof(farewell));
    put(WIRE_WELCOME, &welcome, sizeof(welcome));
    put(WIRE_REFUSED, refused, strlen(refused));
    put(WIRE_RANGES, &ranges, sizeof(ranges));
    return ferror(stdout) || fflush(stdout) != 0;
}

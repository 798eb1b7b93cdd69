/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One vCPU's accesses, between the thread that makes them and the one that sends them. */
#ifndef MMIO_VCPU_H
#define MMIO_VCPU_H

#include <stdatomic.h>
#include <stdint.h>

#include "wire.h"

#define VCPU_RECORDS (1u << 16)

struct vcpu {
    /* Written by the vCPU's thread alone. */
    _Alignas(64) _Atomic uint32_t head;
    _Atomic uint32_t number; /* Of the next access. */
    /* Odd while the thread looks at the ranges and the buffer. */
    _Atomic uint32_t visits;
    /* Written by the sender alone. */
    _Alignas(64) _Atomic uint32_t tail;
    struct wire_record records[VCPU_RECORDS];
};

/* By index; NULL where there is none yet. Their number is that of all that may be plugged in. */
extern _Atomic(struct vcpu *) *vcpus;
extern unsigned vcpu_count;

/* 0, or -1 where memory is short. */
int vcpus_prepare(unsigned count);
/* For the vCPU's own thread; NULL where there can be no such vCPU. */
struct vcpu *vcpu_at(unsigned index);
/* Waits until no vCPU is in a visit that began before: what those visits wrote is there. */
void vcpus_settle(void);

static inline void vcpu_enter(struct vcpu *vcpu)
{
    atomic_fetch_add(&vcpu->visits, 1);
}

static inline void vcpu_leave(struct vcpu *vcpu)
{
    atomic_fetch_add_explicit(&vcpu->visits, 1, memory_order_release);
}

#endif

/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vcpu.h"

#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Atomic(struct vcpu *) *vcpus;
unsigned vcpu_count;

int vcpus_prepare(unsigned count)
{
    vcpus = calloc(count, sizeof(*vcpus));
    vcpu_count = vcpus == NULL ? 0 : count;
    return vcpus == NULL ? -1 : 0;
}

static struct vcpu *add(unsigned index)
{
    struct vcpu *vcpu = aligned_alloc(_Alignof(struct vcpu), sizeof(*vcpu));

    if (vcpu == NULL) {
        /* As QEMU itself does, which also has no memory any more. */
        fprintf(stderr, "mmio-plugin: no memory for the accesses of vCPU %u\n", index);
        abort();
    }
    memset(vcpu, 0, offsetof(struct vcpu, records));
    atomic_store(&vcpus[index], vcpu);
    return vcpu;
}

struct vcpu *vcpu_at(unsigned index)
{
    struct vcpu *vcpu;

    if (index >= vcpu_count) {
        return NULL;
    }
    vcpu = atomic_load_explicit(&vcpus[index], memory_order_relaxed);
    return vcpu == NULL ? add(index) : vcpu;
}

void vcpus_settle(void)
{
    for (unsigned i = 0; i < vcpu_count; i++) {
        struct vcpu *vcpu = atomic_load(&vcpus[i]);
        uint32_t visits;

        if (vcpu == NULL) {
            continue;
        }
        visits = atomic_load(&vcpu->visits);
        while ((visits & 1) != 0 && atomic_load(&vcpu->visits) == visits) {
            sched_yield();
        }
    }
}

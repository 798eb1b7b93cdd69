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

void vcpu_add(unsigned index)
{
    struct vcpu *vcpu;

    /* One that was unplugged and comes again goes on where it was. */
    if (index >= vcpu_count || atomic_load(&vcpus[index]) != NULL) {
        return;
    }
    vcpu = aligned_alloc(_Alignof(struct vcpu), sizeof(*vcpu));
    if (vcpu == NULL) {
        fprintf(stderr, "mmio-plugin: no memory for the accesses of vCPU %u: none is recorded\n",
                index);
        return;
    }
    memset(vcpu, 0, offsetof(struct vcpu, records));
    atomic_store(&vcpus[index], vcpu);
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

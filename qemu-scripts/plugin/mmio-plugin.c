/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A TCG plugin that tells mmiobridge's recorder of each access of the guest's instructions to
 * device memory: who, when, at which program counter, where, and what value. See README.md.
 *
 *   -plugin mmio-plugin-4.so,socket=PATH
 *   -plugin mmio-plugin-4.so,probe=on     says whether this QEMU takes it, and ends
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "link.h"
#include "qemu-plugin-api.h"
#include "vcpu.h"

/* The least page of any target: an access within one lies in one piece. */
#define PAGE_BYTES 4096u
#define MAX_ACCESS_BYTES 16u
/* So many records wait for each other, unless 10 ms are over. */
#define BATCH_RECORDS 1024u
#define FULL_WAIT_US 50

__attribute__((visibility("default"))) extern int qemu_plugin_version;
int qemu_plugin_version = PLUGIN_API;

struct access {
    uint64_t pc;
    uint64_t gpa;
    uint64_t value_lo;
    uint64_t value_hi;
    uint8_t width;
    uint8_t flags;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static bool is_wanted(const struct ranges *ranges, uint64_t first, uint64_t last)
{
    for (uint32_t i = 0; i < ranges->count; i++) {
        if (first <= ranges->at[i].last && last >= ranges->at[i].start) {
            return true;
        }
    }
    return false;
}

static void record(unsigned index, const struct access *access)
{
    struct vcpu *vcpu = vcpu_at(index);
    uint32_t head, tail, number;

    if (vcpu == NULL) {
        return;
    }
    for (;;) {
        const struct ranges *ranges;

        vcpu_enter(vcpu);
        ranges = atomic_load(&link_ranges);
        if (ranges == NULL ||
            !is_wanted(ranges, access->gpa, access->gpa + access->width - 1)) {
            vcpu_leave(vcpu);
            return;
        }
        head = atomic_load_explicit(&vcpu->head, memory_order_relaxed);
        tail = atomic_load_explicit(&vcpu->tail, memory_order_acquire);
        if (!ranges->recording || !atomic_load(&link_up) ||
            (head - tail == VCPU_RECORDS && atomic_load(&link_counts))) {
            number = atomic_load_explicit(&vcpu->number, memory_order_relaxed);
            atomic_store_explicit(&vcpu->number, number + 1, memory_order_relaxed);
            vcpu_leave(vcpu);
            return;
        }
        if (head - tail != VCPU_RECORDS) {
            break;
        }
        vcpu_leave(vcpu);
        usleep(FULL_WAIT_US);
    }
    number = atomic_load_explicit(&vcpu->number, memory_order_relaxed);
    vcpu->records[head % VCPU_RECORDS] = (struct wire_record){
        .time_ns = now_ns(),
        .pc = access->pc,
        .gpa = access->gpa,
        .value_lo = access->value_lo,
        .value_hi = access->value_hi,
        .number = number,
        .vcpu = (uint16_t)index,
        .width = access->width,
        .flags = access->flags,
    };
    atomic_store_explicit(&vcpu->number, number + 1, memory_order_relaxed);
    atomic_store_explicit(&vcpu->head, head + 1, memory_order_release);
    vcpu_leave(vcpu);
    if (head + 1 - tail == BATCH_RECORDS) {
        link_wake();
    }
}

static void take_value(struct access *access, qemu_plugin_mem_value value)
{
    access->value_hi = 0;
    switch (value.type) {
    case QEMU_PLUGIN_MEM_VALUE_U8:
        access->value_lo = value.data.u8;
        break;
    case QEMU_PLUGIN_MEM_VALUE_U16:
        access->value_lo = value.data.u16;
        break;
    case QEMU_PLUGIN_MEM_VALUE_U32:
        access->value_lo = value.data.u32;
        break;
    case QEMU_PLUGIN_MEM_VALUE_U64:
        access->value_lo = value.data.u64;
        break;
    case QEMU_PLUGIN_MEM_VALUE_U128:
        access->value_lo = value.data.u128.low;
        access->value_hi = value.data.u128.high;
        break;
    }
}

static uint8_t byte_of(const struct access *access, unsigned at)
{
    return (uint8_t)(at < 8 ? access->value_lo >> (8 * at) : access->value_hi >> (8 * (at - 8)));
}

/* Bytes [from, to) of an access that lie together at `gpa`, in the largest pieces that there are. */
static void record_part(unsigned index, const struct access *whole, unsigned from, unsigned to,
                        uint64_t gpa)
{
    while (from < to) {
        unsigned width = 8;
        struct access part = *whole;

        while (width > to - from || gpa % width != 0) {
            width /= 2;
        }
        part.gpa = gpa;
        part.width = (uint8_t)width;
        part.flags |= WIRE_PART;
        part.value_lo = part.value_hi = 0;
        for (unsigned i = 0; i < width; i++) {
            part.value_lo |= (uint64_t)byte_of(whole, from + i) << (8 * i);
        }
        record(index, &part);
        from += width;
        gpa += width;
    }
}

struct place {
    bool io;
    uint64_t gpa;
};

static struct place place_of(qemu_plugin_meminfo_t info, uint64_t vaddr)
{
    const struct qemu_plugin_hwaddr *where = qemu_plugin_get_hwaddr(info, vaddr);
    struct place place = { false, 0 };

    if (where != NULL && qemu_plugin_hwaddr_is_io(where)) {
        place.io = true;
        place.gpa = qemu_plugin_hwaddr_phys_addr(where);
    }
    return place;
}

static struct access access_of(qemu_plugin_meminfo_t info, uint64_t gpa, void *pc)
{
    struct access access = {
        .pc = (uintptr_t)pc,
        .gpa = gpa,
        .width = (uint8_t)(1u << qemu_plugin_mem_size_shift(info)),
        .flags = qemu_plugin_mem_is_store(info) ? WIRE_WRITE : 0,
    };

    take_value(&access, qemu_plugin_mem_get_value(info));
    return access;
}

/* An access that may be over two pages. */
static void on_page_end(unsigned index, qemu_plugin_meminfo_t info, uint64_t vaddr, void *pc)
{
    unsigned in_page = PAGE_BYTES - (unsigned)(vaddr % PAGE_BYTES);
    struct place first = place_of(info, vaddr);
    struct access access = access_of(info, first.gpa, pc);
    struct place second = { false, 0 };

    if (access.width > in_page) {
        second = place_of(info, vaddr + in_page);
    }
    if (first.io && (access.width <= in_page ||
                     (second.io && second.gpa == first.gpa + in_page))) {
        record(index, &access);
        return;
    }
    if (first.io) {
        record_part(index, &access, 0, in_page, first.gpa);
    }
    if (second.io) {
        record_part(index, &access, in_page, access.width, second.gpa);
    }
}

/*
 * Each access of the guest to its memory comes by here, nearly all of them to RAM: what is asked
 * before that is known is what a boot takes longer.
 */
static void on_access(unsigned index, qemu_plugin_meminfo_t info, uint64_t vaddr, void *pc)
{
    const struct qemu_plugin_hwaddr *where;
    struct access access;

    if (__builtin_expect(vaddr % PAGE_BYTES > PAGE_BYTES - MAX_ACCESS_BYTES, 0)) {
        on_page_end(index, info, vaddr, pc);
        return;
    }
    where = qemu_plugin_get_hwaddr(info, vaddr);
    if (__builtin_expect(where == NULL || !qemu_plugin_hwaddr_is_io(where), 1)) {
        return;
    }
    access = access_of(info, qemu_plugin_hwaddr_phys_addr(where), pc);
    record(index, &access);
}

static void instrument(struct qemu_plugin_tb *tb)
{
    size_t count = qemu_plugin_tb_n_insns(tb);

    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        void *pc = (void *)(uintptr_t)qemu_plugin_insn_vaddr(insn);

        qemu_plugin_register_vcpu_mem_cb(insn, on_access, QEMU_PLUGIN_CB_NO_REGS,
                                         QEMU_PLUGIN_MEM_RW, pc);
    }
}

#if PLUGIN_API >= 7
static void on_translation(struct qemu_plugin_tb *tb, void *nothing)
{
    (void)nothing;
    instrument(tb);
}

static void on_end(void *nothing)
{
    (void)nothing;
    link_close();
}

static void register_callbacks(qemu_plugin_id_t id)
{
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation, NULL);
    qemu_plugin_register_atexit_cb(id, on_end, NULL);
}
#else
static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    instrument(tb);
}

static void on_end(qemu_plugin_id_t id, void *nothing)
{
    (void)id;
    (void)nothing;
    link_close();
}

static void register_callbacks(qemu_plugin_id_t id)
{
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_atexit_cb(id, on_end, NULL);
}
#endif

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id,
                                                               const qemu_info_t *info, int argc,
                                                               char **argv);

int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    static const char key[] = "socket=";

    if (!info->system_emulation) {
        fprintf(stderr, "mmio-plugin: qemu-%s runs one program, not a machine: it has no devices\n",
                info->target_name);
        return -1;
    }
    if (argc == 1 && strcmp(argv[0], "probe=on") == 0) {
        printf("mmio-plugin: API %d, target %s\n", PLUGIN_API, info->target_name);
        fflush(stdout);
        return -1;
    }
    if (argc != 1 || strncmp(argv[0], key, sizeof(key) - 1) != 0) {
        fprintf(stderr, "mmio-plugin: wants one argument: socket=PATH, the recorder's\n");
        return -1;
    }
    if (vcpus_prepare((unsigned)info->system.max_vcpus) < 0) {
        fprintf(stderr, "mmio-plugin: no memory for %d vCPUs\n", info->system.max_vcpus);
        return -1;
    }
    if (link_open(argv[0] + sizeof(key) - 1, info->target_name) < 0) {
        return -1;
    }
    register_callbacks(id);
    return 0;
}

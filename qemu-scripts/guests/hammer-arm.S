// A guest without an operating system for QEMU's aarch64 "virt" machine, with highmem=off: it sets
// BAR0 of the PCI device in slot 4 to 0x10100000 through ECAM, then writes 0, 1, 2, … 9999 to one of
// its registers and reads it back each time, and switches the machine off. The register is one that an
// e1000e keeps as it is.
//
// Built by hammer-arm.sh.

        .set    ECAM, 0x3f000000 + (4 << 15)
        .set    BAR0, 0x10100000
        .set    REGISTER, 0x5408        // RAL of the second receive address
        .set    COUNT, 10000
        .set    SYSTEM_OFF, 0x84000008  // PSCI

        .text
        .globl  _start
_start: ldr     x0, =ECAM
        ldr     w1, =BAR0
        str     w1, [x0, #0x10]
        ldr     w2, [x0, #0x04]
        and     w2, w2, #0xffff         // status bits are cleared by writing 1
        orr     w2, w2, #2              // answers to memory
        str     w2, [x0, #0x04]

        ldr     x0, =BAR0 + REGISTER
        mov     w2, #0
        ldr     w4, =COUNT
1:      str     w2, [x0]
        ldr     w3, [x0]
        add     w2, w2, #1
        cmp     w2, w4
        b.ne    1b

        ldr     w0, =SYSTEM_OFF
        hvc     #0
2:      wfi
        b       2b

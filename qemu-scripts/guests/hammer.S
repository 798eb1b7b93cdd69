# A guest without an operating system that hammers one register of a PCI device.
#
# It sets BAR0 of the device to 0xe1000000, then writes 0, 1, 2, … to one register and reads another
# after each write, and leaves QEMU through isa-debug-exit with status 33. As every value is written
# once, a log of it shows at a glance what is lost, doubled or out of order.
#
# QEMU boots it as a multiboot kernel. Its parameters are words of -append, numbers in decimal:
#   n=500000  pairs of a write and a read; 0 is for ever
#   d=4       slot of the device on bus 0
#   w=4 r=4   offsets in BAR0 that are written and read
#   p=0       turns of an empty loop after each pair, to go slower
#   b=4       bytes of an access; a sum such as 31 makes pairs of 1, 2, 4, 8 and 16 bytes in turn, of
#             which the widest have the counter in each 4 bytes
#   c=1       processors that do so at once, each counting for itself: as many as the guest has
# The defaults suit the "edu" device, whose register 4 keeps any 32-bit value and reads back its
# complement: both directions show the counter.
#
# Built by hammer.sh. Multiboot: https://www.gnu.org/software/grub/manual/multiboot/multiboot.html

        .set    BAR0, 0xe1000000        # above any RAM of a small guest, below the firmware's own
        .set    EXIT_PORT, 0x501
        .set    START, 0x8000           # where the other processors start, in real mode
        .set    ICR, 0xfee00300         # of the local APIC: commands to other processors
        .set    EXIT_VALUE, 16          # QEMU ends with value * 2 + 1

        .text
        .align  4
        .long   0x1badb002, 0, -0x1badb002      # multiboot header: magic, flags, checksum

        .globl  _start
_start:
        mov     $stack_top, %esp
        cld
        mov     16(%ebx), %esi          # multiboot information: the command line
        testl   $4, (%ebx)
        jz      configure

# For every '=' the letter before it selects a variable, and the digits after it are its value.
# The line begins with the path of this file; a later word overrides what that may hold.
parse:  xor     %edx, %edx              # dl: the character before
1:      mov     %dl, %dh
        lodsb
        mov     %al, %dl
        test    %al, %al
        jz      configure
        cmp     $'=', %al
        jne     1b
        xor     %ecx, %ecx
2:      movzbl  (%esi), %eax
        sub     $'0', %eax
        cmp     $9, %eax
        ja      3f
        imul    $10, %ecx
        add     %eax, %ecx
        inc     %esi
        jmp     2b
3:      mov     $letters, %edi
4:      mov     (%edi), %al
        test    %al, %al
        jz      parse
        cmp     %dh, %al
        je      5f
        inc     %edi
        jmp     4b
5:      sub     $letters, %edi
        mov     %ecx, variables(,%edi,4)
        jmp     parse

# Memory decoding is off while BAR0 moves, so that it is never seen half-set.
configure:
        mov     slot, %ebp
        shl     $11, %ebp
        or      $0x80000000, %ebp       # configuration address of bus 0, slot, function 0
        mov     $0x04, %ecx
        call    select
        inl     %dx, %eax
        mov     %eax, %ebx
        and     $0xfffd, %eax           # not the upper half: status bits are cleared by writing 1
        outl    %eax, %dx
        mov     $0x10, %ecx
        call    select
        mov     $BAR0, %eax
        outl    %eax, %dx
        mov     $0x04, %ecx
        call    select
        mov     %ebx, %eax
        and     $0xffff, %eax
        or      $2, %eax
        outl    %eax, %dx

        cmpl    $1, processors
        je      first
        mov     $start, %esi
        mov     $START, %edi
        mov     $(start_end - start), %ecx
        rep movsb
        movl    $0xc4500, ICR           # INIT, to all others
        mov     $1000000, %ecx
1:      loop    1b
        movl    $(0xc4600 | START >> 12), ICR
        mov     processors, %eax
2:      pause
        cmp     joined, %eax
        jne     2b
first:  movl    $1, go
        xor     %edx, %edx

# The processor's number is in %edx.
run:    mov     %cr4, %eax
        or      $0x200, %eax            # SSE
        mov     %eax, %cr4
        mov     $BAR0, %esi
        add     write_offset, %esi
        mov     $BAR0, %edi
        add     read_offset, %edi
        xor     %eax, %eax
hammer: mov     widths, %ebp
        test    $1, %ebp
        jz      1f
        mov     %al, (%esi)
        mov     (%edi), %bl
1:      test    $2, %ebp
        jz      2f
        mov     %ax, (%esi)
        mov     (%edi), %bx
2:      test    $4, %ebp
        jz      3f
        mov     %eax, (%esi)
        mov     (%edi), %ebx
3:      test    $8, %ebp
        jz      4f
        movd    %eax, %mm0
        punpckldq %mm0, %mm0
        movq    %mm0, (%esi)
        movq    (%edi), %mm1
4:      test    $16, %ebp
        jz      5f
        movd    %eax, %xmm0
        pshufd  $0, %xmm0, %xmm0
        movups  %xmm0, (%esi)
        movups  (%edi), %xmm1
5:      mov     pause, %ecx
        jecxz   7f
6:      dec     %ecx
        jnz     6b
7:      inc     %eax
        cmp     iterations, %eax
        jne     hammer                  # from 0 it takes 2^32 turns to come round: for ever

        lock incl done
        test    %edx, %edx
        jnz     halt
        mov     processors, %eax
8:      pause
        cmp     done, %eax
        jne     8b
        mov     $EXIT_PORT, %dx
        mov     $EXIT_VALUE, %al
        outb    %al, %dx
halt:   cli
        hlt
        jmp     halt

# Selects register %ecx of the device; %dx is then the data port.
select: mov     %ebp, %eax
        or      %ecx, %eax
        mov     $0xcf8, %dx
        outl    %eax, %dx
        mov     $0xcfc, %dx
        ret

# Another processor, in real mode: this part is copied to START.
        .code16
start:  cli
        xor     %ax, %ax
        mov     %ax, %ds
        lgdtl   START + (gdt_address - start)
        mov     %cr0, %eax
        or      $1, %al
        mov     %eax, %cr0
        ljmpl   $8, $protected
gdt_address:
        .word   gdt_end - gdt - 1
        .long   gdt
start_end:
        .code32
protected:
        mov     $16, %ax
        mov     %ax, %ds
        mov     %ax, %es
        mov     %ax, %ss
        mov     $1, %edx
        lock xadd %edx, joined
9:      pause
        cmpl    $0, go
        je      9b
        jmp     run

        .data
        .align  8
gdt:    .quad   0
        .quad   0x00cf9a000000ffff      # code, all of memory
        .quad   0x00cf92000000ffff      # data
gdt_end:
joined: .long   1
go:     .long   0
done:   .long   0
letters: .asciz "ndwrpbc"               # in the order of the variables
        .align  4
variables:
iterations:     .long 500000
slot:           .long 4
write_offset:   .long 4
read_offset:    .long 4
pause:          .long 0
widths:         .long 4
processors:     .long 1

        .bss
        .space  256
stack_top:

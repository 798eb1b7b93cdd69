/*
 * The yardstick of `npm run bench`: vfio lines of a QEMU log on standard input, mmiotrace's R and
 * W lines on standard output. It knows one device, one form of prefix, and no damage.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static uint64_t number(const char **at, unsigned base)
{
    uint64_t value = 0;
    for (;; (*at)++) {
        unsigned char c = **at;
        unsigned digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
        if (digit >= base)
            return value;
        value = value * base + digit;
    }
}

static char *put(char *out, uint64_t value, unsigned base)
{
    char digits[24], *at = digits + sizeof digits;
    do
        *--at = "0123456789abcdef"[value % base];
    while (value /= base);
    size_t length = (size_t)(digits + sizeof digits - at);
    memcpy(out, at, length);
    return out + length;
}

#define LITERAL(text) (memcpy(out, text, sizeof text - 1), out += sizeof text - 1)
#define STARTS(text) (strncmp(at, text, sizeof text - 1) == 0 && (at += sizeof text - 1))

int main(void)
{
    static char buffer[1 << 16], written[1 << 16];
    uint64_t base[10] = {0}, map[10] = {0}, maps = 0, start = 0;
    char *out = written;

    while (fgets(buffer, sizeof buffer, stdin)) {
        const char *at = buffer;
        number(&at, 10);
        if (*at++ != '@')
            continue;
        uint64_t sec = number(&at, 10);
        const char *fraction = at;
        at += 8;
        char op = 0;
        if (STARTS("vfio_region_write  ("))
            op = 'W';
        else if (STARTS("vfio_region_read  ("))
            op = 'R';
        else if (STARTS("pci_update_mappings_add vfio-pci 00:04.0 ")) {
            if (start == 0)
                start = sec;
            unsigned bar = (unsigned)number(&at, 10);
            at += 3;
            base[bar] = number(&at, 16);
        }
        if (op == 0)
            continue;
        at = strstr(at, ":region") + 7;
        unsigned bar = (unsigned)number(&at, 10);
        at += 3;
        uint64_t offset = number(&at, 16), value, width;
        at += op == 'W' ? 4 : 2;
        if (op == 'W') {
            value = number(&at, 16);
            at += 2;
            width = number(&at, 10);
        } else {
            width = number(&at, 10);
            at += 6;
            value = number(&at, 16);
        }
        if (map[bar] == 0)
            map[bar] = ++maps;
        *out++ = op;
        *out++ = ' ';
        out = put(out, width, 10);
        *out++ = ' ';
        out = put(out, sec - start, 10);
        memcpy(out, fraction, 7);
        out += 7;
        *out++ = ' ';
        out = put(out, map[bar], 10);
        LITERAL(" 0x");
        out = put(out, base[bar] + offset, 16);
        LITERAL(" 0x");
        out = put(out, value, 16);
        LITERAL(" 0x0 0\n");
        if (out > written + sizeof written - 256) {
            fwrite(written, 1, (size_t)(out - written), stdout);
            out = written;
        }
    }
    fwrite(written, 1, (size_t)(out - written), stdout);
    return 0;
}

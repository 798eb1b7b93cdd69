/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "link.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "vcpu.h"

#define FLUSH_MS 10
/* A recorder that was killed may be followed by another. */
#define RETRY_MS 100
#define GREETING_S 10
#define INPUT_BYTES (sizeof(struct wire_head) + WIRE_MAX_BODY)

struct ranges *_Atomic link_ranges;
atomic_bool link_up;
atomic_bool link_counts;

static struct sockaddr_un address = { .sun_family = AF_UNIX };
static struct wire_hello hello = { .version = WIRE_VERSION, .record_bytes = sizeof(struct wire_record) };
static int socket_fd = -1;
static int wake_fd = -1;
static pthread_t thread;
static atomic_bool ending;
static uint8_t *input;
static size_t input_bytes;

static void say(const char *what, const char *why)
{
    fprintf(stderr, "mmio-plugin: %s%s%s (%s)\n", what, why == NULL ? "" : ": ",
            why == NULL ? "" : why, address.sun_path);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* All of it, or -1: nobody is there any more. */
static int send_all(struct iovec *parts, size_t count)
{
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = count };

    while (message.msg_iovlen > 0) {
        ssize_t sent = sendmsg(socket_fd, &message, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent < 0) {
            return -1;
        }
        while (message.msg_iovlen > 0 && (size_t)sent >= message.msg_iov->iov_len) {
            sent -= (ssize_t)message.msg_iov->iov_len;
            message.msg_iov++;
            message.msg_iovlen--;
        }
        if (message.msg_iovlen > 0) {
            message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + sent;
            message.msg_iov->iov_len -= (size_t)sent;
        }
    }
    return 0;
}

static int send_message(uint32_t type, const void *body, size_t length)
{
    struct wire_head head = { type, (uint32_t)length };
    struct iovec parts[] = { { &head, sizeof(head) }, { (void *)(uintptr_t)body, length } };

    return send_all(parts, 2);
}

static int send_records(struct vcpu *vcpu)
{
    uint32_t head = atomic_load_explicit(&vcpu->head, memory_order_acquire);
    uint32_t tail = atomic_load_explicit(&vcpu->tail, memory_order_relaxed);

    while (tail != head) {
        uint32_t at = tail % VCPU_RECORDS;
        uint32_t count = head - tail;
        const uint32_t most = WIRE_MAX_BODY / sizeof(struct wire_record);

        if (count > VCPU_RECORDS - at) {
            count = VCPU_RECORDS - at;
        }
        if (count > most) {
            count = most;
        }
        if (send_message(WIRE_RECORDS, &vcpu->records[at], count * sizeof(struct wire_record)) < 0) {
            return -1;
        }
        tail += count;
        atomic_store_explicit(&vcpu->tail, tail, memory_order_release);
    }
    return 0;
}

static int flush(void)
{
    struct wire_tick tick = { now_ns() };

    vcpus_settle();
    for (unsigned i = 0; i < vcpu_count; i++) {
        struct vcpu *vcpu = atomic_load(&vcpus[i]);

        if (vcpu != NULL && send_records(vcpu) < 0) {
            return -1;
        }
    }
    return send_message(WIRE_TICK, &tick, sizeof(tick));
}

static int send_farewell(void)
{
    uint32_t *numbers = calloc(vcpu_count, sizeof(*numbers));
    int result;

    if (numbers == NULL) {
        return -1;
    }
    for (unsigned i = 0; i < vcpu_count; i++) {
        struct vcpu *vcpu = atomic_load(&vcpus[i]);

        numbers[i] = vcpu == NULL ? 0 : atomic_load(&vcpu->number);
    }
    result = send_message(WIRE_FAREWELL, numbers, vcpu_count * sizeof(*numbers));
    free(numbers);
    return result;
}

static void replace_ranges(struct ranges *ranges)
{
    struct ranges *before = atomic_exchange(&link_ranges, ranges);

    vcpus_settle();
    free(before);
}

/* Takes RANGES, and says so in the stream; -1 where they are no ranges, or nobody is there. */
static int take_ranges(const uint8_t *body, uint32_t length)
{
    struct wire_ranges head;
    struct wire_ranges_taken taken = { 0, 0 };
    struct ranges *ranges;
    size_t bytes;

    if (length < sizeof(head)) {
        errno = EBADMSG;
        return -1;
    }
    memcpy(&head, body, sizeof(head));
    bytes = head.count * sizeof(struct wire_range);
    if (head.count > WIRE_MAX_RANGES || length != sizeof(head) + bytes) {
        errno = EBADMSG;
        return -1;
    }
    ranges = malloc(sizeof(*ranges) + bytes);
    if (ranges == NULL) {
        return -1;
    }
    ranges->serial = head.serial;
    ranges->recording = head.recording != 0;
    ranges->count = head.count;
    memcpy(ranges->at, body + sizeof(head), bytes);
    replace_ranges(ranges);
    taken.serial = head.serial;
    if (flush() < 0) {
        return -1;
    }
    return send_message(WIRE_RANGES_TAKEN, &taken, sizeof(taken));
}

/* One message of the input, if it is there: 1; 0 more is needed; -1 with errno. */
static int take_message(int (*take)(uint32_t type, const uint8_t *body, uint32_t length))
{
    struct wire_head head;
    size_t all;

    if (input_bytes < sizeof(head)) {
        return 0;
    }
    memcpy(&head, input, sizeof(head));
    if (head.length > WIRE_MAX_BODY) {
        errno = EBADMSG;
        return -1;
    }
    all = sizeof(head) + head.length;
    if (input_bytes < all) {
        return 0;
    }
    if (take(head.type, input + sizeof(head), head.length) < 0) {
        return -1;
    }
    memmove(input, input + all, input_bytes - all);
    input_bytes -= all;
    return 1;
}

/* Reads what is there; 0, or -1 with errno: 0 where the recorder has gone. */
static int receive(int flags)
{
    ssize_t got = recv(socket_fd, input + input_bytes, INPUT_BYTES - input_bytes, flags);

    if (got > 0) {
        input_bytes += (size_t)got;
        return 0;
    }
    if (got < 0 && (errno == EINTR || (errno == EAGAIN && (flags & MSG_DONTWAIT) != 0))) {
        return 0;
    }
    if (got == 0) {
        errno = 0;
    }
    return -1;
}

static int on_greeting(uint32_t type, const uint8_t *body, uint32_t length)
{
    struct wire_welcome welcome;
    char why[256] = "";

    if (type == WIRE_REFUSED) {
        memcpy(why, body, length < sizeof(why) ? length : sizeof(why) - 1);
        say("the recorder refuses", why);
        errno = EPROTO;
        return -1;
    }
    if (type != WIRE_WELCOME || length != sizeof(welcome)) {
        errno = EBADMSG;
        return -1;
    }
    memcpy(&welcome, body, sizeof(welcome));
    if (welcome.version != WIRE_VERSION) {
        snprintf(why, sizeof(why), "its version is %u, the plugin's %d: build the plugin anew",
                 welcome.version, WIRE_VERSION);
        say("the recorder speaks another language", why);
        errno = EPROTO;
        return -1;
    }
    atomic_store(&link_counts, welcome.overflow == WIRE_COUNT);
    return 0;
}

static int on_message(uint32_t type, const uint8_t *body, uint32_t length)
{
    if (type != WIRE_RANGES) {
        errno = EBADMSG;
        return -1;
    }
    return take_ranges(body, length);
}

static void hang_up(void)
{
    atomic_store(&link_up, false);
    vcpus_settle();
    close(socket_fd);
    socket_fd = -1;
    /* Nobody gets them: the gap in the numbers tells of it. */
    for (unsigned i = 0; i < vcpu_count; i++) {
        struct vcpu *vcpu = atomic_load(&vcpus[i]);

        if (vcpu != NULL) {
            atomic_store(&vcpu->tail, atomic_load(&vcpu->head));
        }
    }
}

/* 0, or -1 with errno; then there is no socket. */
static int connect_and_greet(void)
{
    struct timeval limit = { .tv_sec = GREETING_S };
    struct timeval no_limit = { 0 };
    int taken, error;

    socket_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (socket_fd < 0) {
        return -1;
    }
    input_bytes = 0;
    if (connect(socket_fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        setsockopt(socket_fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
        send_message(WIRE_HELLO, &hello, sizeof(hello)) < 0) {
        goto failed;
    }
    while ((taken = take_message(on_greeting)) == 0) {
        if (receive(0) < 0) {
            if (errno == EAGAIN) {
                errno = ETIMEDOUT;
            }
            goto failed;
        }
    }
    if (taken < 0) {
        goto failed;
    }
    setsockopt(socket_fd, SOL_SOCKET, SO_RCVTIMEO, &no_limit, sizeof(no_limit));
    atomic_store(&link_up, true);
    return 0;

failed:
    error = errno;
    close(socket_fd);
    socket_fd = -1;
    errno = error;
    return -1;
}

/* Until QEMU ends (true), or the recorder is gone (false, with errno). */
static bool serve(void)
{
    for (;;) {
        struct pollfd ready[] = { { socket_fd, POLLIN, 0 }, { wake_fd, POLLIN, 0 } };
        uint64_t count;
        int taken;

        poll(ready, 2, FLUSH_MS);
        if ((ready[1].revents & POLLIN) != 0 && read(wake_fd, &count, sizeof(count)) < 0) {
            continue;
        }
        if (atomic_load(&ending)) {
            if (flush() == 0) {
                send_farewell();
            }
            return true;
        }
        if (flush() < 0) {
            return false;
        }
        if (ready[0].revents != 0 && receive(MSG_DONTWAIT) < 0) {
            return false;
        }
        while ((taken = take_message(on_message)) > 0) {
        }
        if (taken < 0) {
            return false;
        }
    }
}

static void *run(void *nothing)
{
    (void)nothing;
    while (!serve()) {
        bool mad = errno == EBADMSG;

        hang_up();
        if (mad) {
            say("the recorder sent what is no message of ours: nothing more is recorded", NULL);
            return NULL;
        }
        say("the recorder is gone: the guest goes on, and its accesses are counted", NULL);
        for (;;) {
            struct pollfd woken = { wake_fd, POLLIN, 0 };

            if (atomic_load(&ending)) {
                return NULL;
            }
            if (connect_and_greet() == 0) {
                say("a recorder is there again", NULL);
                break;
            }
            /* Who is there and does not want us has said why. Anything else may pass. */
            if (errno == EPROTO || errno == EBADMSG) {
                say("nothing more is recorded", strerror(errno));
                return NULL;
            }
            poll(&woken, 1, RETRY_MS);
        }
    }
    hang_up();
    return NULL;
}

int link_open(const char *socket_path, const char *target)
{
    sigset_t all, before;
    int failed;

    if (strlen(socket_path) >= sizeof(address.sun_path)) {
        fprintf(stderr, "mmio-plugin: the path of the socket is too long: %s\n", socket_path);
        return -1;
    }
    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    memcpy(hello.magic, WIRE_MAGIC, sizeof(hello.magic));
    memcpy(hello.target, target,
           strlen(target) < sizeof(hello.target) ? strlen(target) : sizeof(hello.target));
    hello.pid = (uint32_t)getpid();
    hello.max_vcpus = vcpu_count;

    input = malloc(INPUT_BYTES);
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (input == NULL || wake_fd < 0) {
        say("cannot begin", strerror(errno));
        return -1;
    }
    if (connect_and_greet() < 0) {
        say("no recorder takes the accesses",
            errno == EBADMSG ? "who listens there answers with what is no message of ours"
            : errno == 0     ? "it hung up"
                             : strerror(errno));
        return -1;
    }
    /* Signals are for QEMU's own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&thread, NULL, run, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0) {
        hang_up();
        say("cannot begin", strerror(failed));
        return -1;
    }
    pthread_setname_np(thread, "mmio-plugin");
    return 0;
}

void link_wake(void)
{
    uint64_t one = 1;

    if (write(wake_fd, &one, sizeof(one)) < 0) {
        /* It is awake, and has not looked for long. */
        return;
    }
}

void link_close(void)
{
    atomic_store(&ending, true);
    link_wake();
    pthread_join(thread, NULL);
    replace_ranges(NULL);
}

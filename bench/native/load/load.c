/* A load generator for echo servers. It answers lines on its standard input:

       echo PORT CONNECTIONS IN_FLIGHT SIZE SECONDS

   with one line of JSON: how many replies came back in that time, and how long they took. Frames
   have a length of 4 bytes, big-endian. Each connection keeps IN_FLIGHT messages on the way. Every
   reply is compared with its message, byte for byte, and must come in order: each message begins
   with a number that no other one of its connection has.

   A warm-up of a fifth of the time comes first and does not count. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEADER = 4, READ_SIZE = 256 * 1024, EVENTS = 256 };
/* Latencies: 64 classes for each power of two nanoseconds. */
enum { CLASSES_BITS = 6, CLASSES = 1 << CLASSES_BITS, BUCKETS = 64 * CLASSES };

struct connection {
    int fd;
    uint64_t sent;        /* messages that were put into `out` */
    uint64_t received;    /* replies that were compared */
    uint64_t *began;      /* when each message in flight was sent, a ring */
    char *out;            /* frames to send */
    size_t out_size, out_left;
    char *in;             /* the beginning of a reply */
    size_t in_size;
};

static uint64_t histogram[BUCKETS];
static char failure[256];

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static unsigned bucket(uint64_t ns)
{
    if (ns < CLASSES)
        return (unsigned)ns;
    unsigned power = 63 - (unsigned)__builtin_clzll(ns);
    return (power - CLASSES_BITS + 1) * CLASSES
           + (unsigned)((ns >> (power - CLASSES_BITS)) & (CLASSES - 1));
}

static uint64_t value_of(unsigned index)
{
    unsigned power = index / CLASSES;
    if (!power)
        return index;
    return ((uint64_t)(CLASSES + index % CLASSES)) << (power - 1);
}

static uint64_t percentile(uint64_t count, double part)
{
    uint64_t wanted = (uint64_t)((double)count * part), seen = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        seen += histogram[i];
        if (seen > wanted)
            return value_of(i);
    }
    return 0;
}

/* Message number `number`: the template, with the number in its first bytes. */
static void write_number(char *message, size_t size, uint64_t number)
{
    memcpy(message, &number, size < sizeof number ? size : sizeof number);
}

static int is_message(const char *found, const char *template, size_t size, uint64_t number)
{
    size_t part = size < sizeof number ? size : sizeof number;
    return !memcmp(found, &number, part) && !memcmp(found + part, template + part, size - part);
}

static int fail(const char *text)
{
    snprintf(failure, sizeof failure, "%s", text);
    return -1;
}

static int flush(struct connection *c, int epoll)
{
    while (c->out_left) {
        ssize_t sent = send(c->fd, c->out + (c->out_size - c->out_left), c->out_left,
                            MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0)
            return fail("the server has closed the connection");
        c->out_left -= (size_t)sent;
    }
    struct epoll_event event = {.events = EPOLLIN | (c->out_left ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
    return 0;
}

static void put(struct connection *c, const char *template, size_t size, uint64_t in_flight,
                uint64_t count, uint64_t time)
{
    if (!c->out_left)
        c->out_size = 0;
    else if (c->out_size != c->out_left)
        memmove(c->out, c->out + (c->out_size - c->out_left), c->out_left);
    c->out_size = c->out_left;
    for (uint64_t i = 0; i < count; i++, c->sent++) {
        char *p = c->out + c->out_size;
        uint32_t header = htonl((uint32_t)size);
        memcpy(p, &header, HEADER);
        memcpy(p + HEADER, template, size);
        write_number(p + HEADER, size, c->sent);
        c->out_size += HEADER + size;
        c->began[c->sent % in_flight] = time;
    }
    c->out_left = c->out_size;
}

/* Compares what has arrived; returns how many replies are whole, or -1. */
static int64_t take(struct connection *c, char *data, size_t size, size_t message_size,
                    const char *template, uint64_t in_flight, uint64_t time, int counts)
{
    size_t frame = HEADER + message_size, position = 0;
    int64_t whole = 0;
    while (size - position >= frame) {
        uint32_t header;
        memcpy(&header, data + position, HEADER);
        if (ntohl(header) != message_size)
            return fail("a reply has another size than its message");
        if (!is_message(data + position + HEADER, template, message_size, c->received))
            return fail("a reply differs from its message");
        if (c->received >= c->sent)
            return fail("more replies than messages");
        if (counts)
            histogram[bucket(time - c->began[c->received % in_flight])]++;
        c->received++;
        whole++;
        position += frame;
    }
    c->in_size = size - position;
    memmove(c->in, data + position, c->in_size);
    return whole;
}

static int open_connection(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Reads to the end of the stream, so that the server sees a clean end; for half a second at most. */
static void end_connection(int fd, char *buffer)
{
    struct timeval limit = {.tv_usec = 500000};
    uint64_t stop = now() + 500000000u;
    shutdown(fd, SHUT_WR);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    while (now() < stop && recv(fd, buffer, READ_SIZE, 0) > 0)
        ;
}

static int64_t run(int port, int connections, uint64_t in_flight, size_t size, double seconds,
                   double *taken)
{
    struct connection *all = calloc((size_t)connections, sizeof *all);
    char *template = malloc(size + 1), *buffer = malloc(READ_SIZE + HEADER + size);
    int epoll = epoll_create1(0);
    int64_t replies = 0;
    for (size_t i = 0; i < size; i++)
        template[i] = (char)(i * 7 + 1);
    memset(histogram, 0, sizeof histogram);
    failure[0] = 0;
    for (int i = 0; i < connections; i++) {
        struct connection *c = &all[i];
        c->fd = open_connection(port);
        if (c->fd < 0) {
            fail("cannot connect");
            goto end;
        }
        c->began = calloc(in_flight, sizeof *c->began);
        c->out = malloc(in_flight * (HEADER + size));
        c->in = malloc(READ_SIZE + HEADER + size);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    }
    uint64_t start = now(), measure_from = start + (uint64_t)(seconds * 0.2e9), measured = 0;
    uint64_t stop = measure_from + (uint64_t)(seconds * 1e9), time = start;
    for (int i = 0; i < connections; i++) {
        put(&all[i], template, size, in_flight, in_flight, start);
        if (flush(&all[i], epoll) < 0)
            goto end;
    }
    while ((time = now()) < stop) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, 1000);
        time = now();
        if (time >= measure_from && !measured) {
            measured = time;
            replies = 0;
        }
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (events[i].events & EPOLLOUT && flush(c, epoll) < 0)
                goto end;
            if (!(events[i].events & ~(uint32_t)EPOLLOUT))
                continue;
            memcpy(buffer, c->in, c->in_size);
            ssize_t found = recv(c->fd, buffer + c->in_size, READ_SIZE, MSG_DONTWAIT);
            if (found < 0 && errno == EAGAIN)
                continue;
            if (found <= 0) {
                fail("the server has closed the connection");
                goto end;
            }
            int64_t whole = take(c, buffer, c->in_size + (size_t)found, size, template, in_flight,
                                 time, measured != 0);
            if (whole < 0)
                goto end;
            replies += whole;
            if (whole) {
                put(c, template, size, in_flight, (uint64_t)whole, time);
                if (flush(c, epoll) < 0)
                    goto end;
            }
        }
    }
    *taken = (double)(time - measured) / 1e9;
end:
    for (int i = 0; i < connections; i++) {
        if (all[i].fd > 0) {
            end_connection(all[i].fd, buffer);
            close(all[i].fd);
        }
        free(all[i].began);
        free(all[i].out);
        free(all[i].in);
    }
    close(epoll);
    free(all);
    free(template);
    free(buffer);
    return failure[0] ? -1 : replies;
}

int main(void)
{
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        int port, connections, in_flight, size;
        double seconds, taken = 0;
        if (sscanf(line, "echo %d %d %d %d %lf", &port, &connections, &in_flight, &size, &seconds)
                != 5
            || connections < 1 || in_flight < 1 || size < 1) {
            printf("{\"error\": \"not understood\"}\n");
        } else {
            int64_t replies = run(port, connections, (uint64_t)in_flight, (size_t)size, seconds,
                                  &taken);
            if (replies < 0)
                printf("{\"error\": \"%s\"}\n", failure);
            else
                printf("{\"replies\": %lld, \"seconds\": %.9f, \"p50\": %llu, \"p99\": %llu,"
                       " \"p999\": %llu}\n",
                       (long long)replies, taken,
                       (unsigned long long)percentile((uint64_t)replies, 0.5),
                       (unsigned long long)percentile((uint64_t)replies, 0.99),
                       (unsigned long long)percentile((uint64_t)replies, 0.999));
        }
        fflush(stdout);
    }
    return 0;
}

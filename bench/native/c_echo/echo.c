/* An echo server by hand, the limit for all others: epoll, one thread, 4-byte big-endian frames.

   It parses each frame, and writes each reply's frame anew, as a server with a handler must. It
   prints its port, and ends with its standard input. */

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
#include <unistd.h>

enum { HEADER = 4, SIZE = 256 * 1024, LIMIT = 16 << 20, EVENTS = 256 };

struct connection {
    int fd;
    char *in, *out;
    size_t in_size, in_capacity, out_start, out_size, out_capacity;
};

static int grow(char **memory, size_t *capacity, size_t wanted)
{
    if (wanted <= *capacity)
        return 0;
    char *larger = realloc(*memory, wanted);
    if (!larger)
        return -1;
    *memory = larger;
    *capacity = wanted;
    return 0;
}

static int flush(struct connection *c, int epoll)
{
    while (c->out_start < c->out_size) {
        ssize_t sent = send(c->fd, c->out + c->out_start, c->out_size - c->out_start, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0)
            return -1;
        c->out_start += (size_t)sent;
    }
    size_t left = c->out_size - c->out_start;
    if (!left)
        c->out_start = c->out_size = 0;
    struct epoll_event event = {.events = left ? EPOLLOUT : EPOLLIN, .data.ptr = c};
    return epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

static int receive(struct connection *c, int epoll)
{
    if (grow(&c->in, &c->in_capacity, c->in_size + SIZE) < 0)
        return -1;
    ssize_t found = recv(c->fd, c->in + c->in_size, SIZE, MSG_DONTWAIT);
    if (found < 0)
        return errno == EAGAIN ? 0 : -1;
    if (!found)
        return -1;
    c->in_size += (size_t)found;
    size_t position = 0;
    while (c->in_size - position >= HEADER) {
        uint32_t size;
        memcpy(&size, c->in + position, HEADER);
        size = ntohl(size);
        if (size > LIMIT)
            return -1;
        if (c->in_size - position < HEADER + (size_t)size)
            break;
        if (grow(&c->out, &c->out_capacity, c->out_size + HEADER + size) < 0)
            return -1;
        uint32_t header = htonl(size);
        memcpy(c->out + c->out_size, &header, HEADER);
        memcpy(c->out + c->out_size + HEADER, c->in + position + HEADER, size);
        c->out_size += HEADER + size;
        position += HEADER + size;
    }
    c->in_size -= position;
    memmove(c->in, c->in + position, c->in_size);
    if (!c->out_size)
        return 0;
    ssize_t sent = send(c->fd, c->out, c->out_size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent == (ssize_t)c->out_size) {
        c->out_size = 0;
        return 0;
    }
    if (sent < 0 && errno != EAGAIN)
        return -1;
    c->out_start = sent < 0 ? 0 : (size_t)sent;
    return flush(c, epoll);
}

int main(void)
{
    int listener = socket(AF_INET, SOCK_STREAM, 0), epoll = epoll_create1(0), one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 1024) < 0)
        return 1;
    getsockname(listener, (struct sockaddr *)&address, &length);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    struct connection own = {.fd = listener}, input = {.fd = 0};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &own};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    event.data.ptr = &input;
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
    for (;;) {
        struct epoll_event events[EVENTS];
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct connection *c = events[i].data.ptr;
            if (c == &input)
                return 0;
            if (c == &own) {
                c = calloc(1, sizeof *c);
                c->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                event = (struct epoll_event){.events = EPOLLIN, .data.ptr = c};
                epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
                continue;
            }
            int failed = c->out_size ? flush(c, epoll) : receive(c, epoll);
            if (failed < 0) {
                close(c->fd);
                free(c->in);
                free(c->out);
                free(c);
            }
        }
    }
}

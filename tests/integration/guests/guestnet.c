/* What busybox lacks for the guests' checks: UDP, TCP half-close, DNS over both, upload of binary data (its wget takes a
 * posted file for a C string). Linked statically.
 *
 *   guestnet udp-echo ADDRESS PORT TEXT      sends TEXT (again after each second without an answer), prints the answer
 *   guestnet half-close ADDRESS PORT BYTES   sends BYTES bytes, then FIN; prints how many came back intact and the rest
 *   guestnet upload ADDRESS PORT FILE        posts FILE to /upload, prints the body of the answer
 *   guestnet dns udp|tcp SERVER NAME TYPE    prints "rcode N tc N answers N bytes N" and the first A record's address
 *
 * Exit status 0 when an answer came, 1 otherwise with a line on stderr.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

enum { DATAGRAM_TRIES = 20, MESSAGE = 65536, STREAM_TIMEOUT_S = 60 };

static int fail(const char *what)
{
    perror(what);
    return 1;
}

static int connected(int kind, const char *address, const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    struct timeval timeout = {.tv_sec = kind == SOCK_DGRAM ? 1 : STREAM_TIMEOUT_S};
    int fd = socket(AF_INET, kind, 0);

    if (fd < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    return connect(fd, (struct sockaddr *)&to, sizeof to) == 0 ? fd : -1;
}

/* Datagrams may be lost: ask again until an answer comes. */
static ssize_t ask(int fd, const void *query, size_t size, void *reply)
{
    for (int tries = 0; tries < DATAGRAM_TRIES; tries++) {
        ssize_t got = send(fd, query, size, 0) < 0 ? -1 : recv(fd, reply, MESSAGE, 0);
        if (got >= 0)
            return got;
    }
    return -1;
}

static int udp_echo(char **argv)
{
    static char reply[MESSAGE];
    int fd = connected(SOCK_DGRAM, argv[0], argv[1]);
    ssize_t got = fd < 0 ? -1 : ask(fd, argv[2], strlen(argv[2]), reply);

    if (got < 0)
        return fail("udp-echo");
    printf("%.*s\n", (int)got, reply);
    return 0;
}

static unsigned char pattern(size_t index)
{
    return (unsigned char)(index * 31 + index / 251);
}

static int write_all(int fd, const unsigned char *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t wrote = write(fd, data + done, size - done);
        if (wrote <= 0)
            return -1;
        done += (size_t)wrote;
    }
    return 0;
}

static int send_pattern(int fd, size_t size)
{
    static unsigned char chunk[16384];

    for (size_t sent = 0; sent < size;) {
        size_t part = size - sent < sizeof chunk ? size - sent : sizeof chunk;
        for (size_t i = 0; i < part; i++)
            chunk[i] = pattern(sent + i);
        if (write_all(fd, chunk, part) != 0)
            return -1;
        sent += part;
    }
    return shutdown(fd, SHUT_WR);
}

/* The echo would block if it were not read meanwhile: BYTES stays below the buffers on the way. */
static int half_close(char **argv)
{
    static unsigned char reply[16384];
    size_t size = strtoul(argv[2], NULL, 10), intact = 0, total = 0;
    int fd = connected(SOCK_STREAM, argv[0], argv[1]);
    ssize_t got;

    if (fd < 0 || send_pattern(fd, size) != 0)
        return fail("half-close");
    while ((got = read(fd, reply, sizeof reply)) > 0) {
        for (ssize_t i = 0; i < got; i++, total++) {
            if (total < size)
                intact += reply[i] == pattern(total);
            else if (reply[i] == '\n')
                printf(" intact %zu of %zu\n", intact, size);
            else
                putchar(reply[i]);
        }
    }
    return got < 0 ? fail("half-close: read") : 0;
}

static int upload(char **argv)
{
    static unsigned char chunk[16384], reply[MESSAGE];
    struct stat about;
    int file = open(argv[2], O_RDONLY), fd = connected(SOCK_STREAM, argv[0], argv[1]);
    size_t total = 0;
    ssize_t got;
    char *body;

    if (file < 0 || fd < 0 || fstat(file, &about) != 0)
        return fail("upload");
    dprintf(fd, "POST /upload HTTP/1.0\r\nContent-Length: %lld\r\n\r\n", (long long)about.st_size);
    while ((got = read(file, chunk, sizeof chunk)) > 0)
        if (write_all(fd, chunk, (size_t)got) != 0)
            return fail("upload: write");
    while (total < sizeof reply - 1 && (got = read(fd, reply + total, sizeof reply - 1 - total)) > 0)
        total += (size_t)got;
    if (got < 0 || (body = strstr((char *)reply, "\r\n\r\n")) == NULL)
        return fail("upload: read");
    fputs(body + 4, stdout);
    return 0;
}

static size_t dns_query(unsigned char *out, const char *name, int type)
{
    static const unsigned char header[12] = {0x41, 0x45, 0x01, 0, 0, 1};
    size_t at = sizeof header;

    memcpy(out, header, sizeof header);
    while (*name) {
        size_t label = strcspn(name, ".");
        out[at++] = (unsigned char)label;
        memcpy(out + at, name, label);
        at += label;
        name += label + (name[label] == '.');
    }
    out[at++] = 0;
    out[at++] = 0;
    out[at++] = (unsigned char)type;
    out[at++] = 0;
    out[at++] = 1;
    return at;
}

static ssize_t read_all(int fd, unsigned char *into, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = read(fd, into + done, size - done);
        if (got <= 0)
            return -1;
        done += (size_t)got;
    }
    return (ssize_t)size;
}

static ssize_t dns_tcp(int fd, const unsigned char *query, size_t size, unsigned char *reply)
{
    unsigned char length[2] = {(unsigned char)(size >> 8), (unsigned char)size};

    if (write(fd, length, 2) != 2 || write(fd, query, size) != (ssize_t)size || read_all(fd, length, 2) < 0)
        return -1;
    return read_all(fd, reply, (size_t)(length[0] << 8 | length[1]));
}

static int dns(char **argv)
{
    static unsigned char query[512], reply[MESSAGE];
    int tcp = strcmp(argv[0], "tcp") == 0;
    int type = strcmp(argv[3], "TXT") == 0 ? 16 : 1;
    size_t size = dns_query(query, argv[2], type);
    int fd = connected(tcp ? SOCK_STREAM : SOCK_DGRAM, argv[1], "53");
    ssize_t got = fd < 0 ? -1 : tcp ? dns_tcp(fd, query, size, reply) : ask(fd, query, size, reply);

    if (got < 12 || memcmp(query, reply, 2) != 0)
        return fail("dns");
    printf("rcode %d tc %d answers %d bytes %zd", reply[3] & 15, reply[2] >> 1 & 1, reply[6] << 8 | reply[7], got);
    /* One A record at the end of the message, without an OPT record: its address is the last four bytes. */
    if (type == 1 && reply[7] == 1)
        printf(" %d.%d.%d.%d", reply[got - 4], reply[got - 3], reply[got - 2], reply[got - 1]);
    putchar('\n');
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "udp-echo") == 0)
        return udp_echo(argv + 2);
    if (argc == 5 && strcmp(argv[1], "half-close") == 0)
        return half_close(argv + 2);
    if (argc == 5 && strcmp(argv[1], "upload") == 0)
        return upload(argv + 2);
    if (argc == 6 && strcmp(argv[1], "dns") == 0)
        return dns(argv + 2);
    fprintf(stderr, "usage: see the top of guestnet.c\n");
    return 2;
}

/* A guest's network card: frames between a TAP and a tunnel's WebSocket, after its handshake.
 *
 *   card TAP_FD SOCKET_FD
 *
 * In C, since a card in Python takes as much of a core as the server it is there to measure. Masks are random
 * (RFC 6455 section 5.3), batches go both ways, PINGs are answered. While the WebSocket takes nothing, the TAP
 * is not read. Ends with 0 when the WebSocket does, with 1 when the TAP does or the server sends what no tunnel
 * has.
 */

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FRAME_MAX = 2048, BATCH = 64, IN_SIZE = 1 << 18, OUT_SIZE = BATCH * (FRAME_MAX + 16) };
enum { BINARY = 0x82, CLOSE = 0x88, WS_PING = 0x89, WS_PONG = 0x8a };
enum { FRAME = 0x00, PING = 0x01, PONG = 0x02, HEADER = 4 };

static uint8_t in[IN_SIZE], out[2 * OUT_SIZE];
static size_t in_end, out_start, out_end;
static uint64_t seed;

static uint32_t next_mask(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16);
}

/* Append a masked WebSocket frame whose payload stands at `payload`; `head` bytes go in front of it. */
static void append(uint8_t opcode, const uint8_t *head, size_t head_size, const uint8_t *payload, size_t size)
{
	size_t whole = head_size + size;
	uint8_t *at = out + out_end;
	uint32_t mask = next_mask();
	uint64_t wide = ((uint64_t)mask << 32) | mask, part;

	*at++ = opcode;
	if (whole < 126) {
		*at++ = (uint8_t)(0x80 | whole);
	} else {
		*at++ = 0xfe;
		*at++ = (uint8_t)(whole >> 8);
		*at++ = (uint8_t)whole;
	}
	memcpy(at, &mask, 4);
	at += 4;
	memcpy(at, head, head_size);
	memcpy(at + head_size, payload, size);
	for (size_t i = 0; i < whole; i += 8) { /* up to 7 bytes behind the end are spoilt; there is room */
		memcpy(&part, at + i, 8);
		part ^= wide;
		memcpy(at + i, &part, 8);
	}
	out_end = (size_t)(at + whole - out);
}

static void take_message(int tap, uint8_t opcode, const uint8_t *data, size_t size)
{
	static const uint8_t pong[HEADER] = { 0xa2, 0x03, PONG, 0 };

	if (opcode == CLOSE)
		exit(0);
	if (opcode == WS_PING && size < 126 && out_end < OUT_SIZE)
		append(WS_PONG, data, 0, data, size);
	if (opcode != BINARY || size < HEADER)
		return;
	if (data[0] != 0xa2 || data[1] != 0x03)
		exit(1);
	if (data[2] == FRAME && write(tap, data + HEADER, size - HEADER) < 0)
		return; /* the guest's card is down: the frame is lost, as on any cable */
	if (data[2] == PING && out_end < OUT_SIZE)
		append(BINARY, pong, HEADER, data + HEADER, size - HEADER);
}

/* Hand every complete message over and keep the rest. */
static void take_messages(int tap)
{
	size_t at = 0;

	while (in_end - at >= 2) {
		size_t size = in[at + 1] & 0x7f, skip = size == 126 ? 4 : 2;

		if (size == 127)
			exit(1);
		if (size == 126 && in_end - at >= 4)
			size = ((size_t)in[at + 2] << 8) | in[at + 3];
		if (in_end - at < skip + size)
			break;
		take_message(tap, in[at], in + at + skip, size);
		at += skip + size;
	}
	memmove(in, in + at, in_end - at);
	in_end -= at;
}

static void read_tap(int tap)
{
	static const uint8_t head[HEADER] = { 0xa2, 0x03, FRAME, 0 };
	static uint8_t frame[FRAME_MAX];

	for (int i = 0; i < BATCH && out_end < OUT_SIZE; i++) {
		ssize_t size = read(tap, frame, sizeof frame);

		if (size <= 0)
			break;
		append(BINARY, head, HEADER, frame, (size_t)size);
	}
}

static void flush(int connection)
{
	ssize_t sent = send(connection, out + out_start, out_end - out_start, MSG_NOSIGNAL);

	if (sent < 0 && errno != EAGAIN)
		exit(0);
	if (sent > 0)
		out_start += (size_t)sent;
	if (out_start == out_end)
		out_start = out_end = 0;
}

int main(int argc, char **argv)
{
	if (argc != 3 || getrandom(&seed, sizeof seed, 0) != sizeof seed)
		return 2;
	int tap = atoi(argv[1]), connection = atoi(argv[2]), on = 1;

	seed |= 1;
	setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* fails on a relay's socket: no matter */
	fcntl(connection, F_SETFL, fcntl(connection, F_GETFL) | O_NONBLOCK);
	fcntl(tap, F_SETFL, fcntl(tap, F_GETFL) | O_NONBLOCK);
	for (;;) {
		struct pollfd wait[2] = {
			{ .fd = connection, .events = (short)(POLLIN | (out_end ? POLLOUT : 0)) },
			{ .fd = out_end ? -1 : tap, .events = POLLIN },
		};

		if (poll(wait, 2, -1) < 0)
			return 1;
		if (wait[0].revents & (POLLIN | POLLHUP | POLLERR)) {
			ssize_t got = recv(connection, in + in_end, sizeof in - in_end, 0);

			if (got == 0 || (got < 0 && errno != EAGAIN))
				return 0;
			in_end += got > 0 ? (size_t)got : 0;
			take_messages(tap);
		}
		if (wait[1].revents & (POLLERR | POLLHUP | POLLNVAL))
			return 1;
		if (!out_end && (wait[1].revents & POLLIN))
			read_tap(tap);
		if (out_end)
			flush(connection);
	}
}

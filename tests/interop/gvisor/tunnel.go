package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/coder/websocket"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// docs/protocol.md, Messages.
const (
	subprotocol = "aero-l2-tunnel-v1"
	magic       = 0xA2
	version     = 0x03

	typeFrame = 0x00
	typePing  = 0x01
	typePong  = 0x02
	typeError = 0x7F

	headerBytes     = 4
	maxMessageBytes = headerBytes + 2048
)

const (
	queuedFrames  = 1024
	ethernetMTU   = 1500 + header.EthernetMinimumSize
	guestHardware = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x0f")
)

// tunnel joins a network card of gVisor's and a WebSocket.
type tunnel struct {
	link   *channel.Endpoint
	socket *websocket.Conn
	stop   context.CancelFunc
	sent   chan struct{} // closed when the last frame was sent
	ended  chan error    // why the reader ended
}

func openTunnel(ctx context.Context, address, origin string) (*tunnel, error) {
	socket, _, err := websocket.Dial(ctx, address, &websocket.DialOptions{
		HTTPHeader:   http.Header{"Origin": {origin}},
		Subprotocols: []string{subprotocol},
	})
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		err = failed.Err // without the address, whose query may hold a token
	}
	if err != nil {
		return nil, err
	}
	if got := socket.Subprotocol(); got != subprotocol {
		return nil, fmt.Errorf("the server agreed on the subprotocol %q", got)
	}
	socket.SetReadLimit(maxMessageBytes)
	return &tunnel{
		link:   channel.New(queuedFrames, ethernetMTU, guestHardware),
		socket: socket,
		sent:   make(chan struct{}),
		ended:  make(chan error, 1),
	}, nil
}

// start carries frames both ways until close.
func (t *tunnel) start(ctx context.Context) {
	sending, stop := context.WithCancel(ctx)
	t.stop = stop
	go func() {
		defer close(t.sent)
		t.send(ctx, sending)
	}()
	go func() { t.ended <- t.receive(ctx) }()
}

// close ends the tunnel by a close handshake; an error if it had ended by itself or ends otherwise.
func (t *tunnel) close() error {
	t.stop()
	<-t.sent
	err := t.socket.Close(websocket.StatusNormalClosure, "")
	ended := <-t.ended
	if websocket.CloseStatus(ended) == websocket.StatusNormalClosure {
		return err
	}
	return errors.Join(err, ended)
}

func message(kind byte, payload []byte) []byte {
	return append([]byte{magic, version, kind, 0}, payload...)
}

// send takes the stack's frames to the server until `sending` is over. A write uses ctx: one that is
// interrupted would end the connection.
func (t *tunnel) send(ctx, sending context.Context) {
	for {
		packet := t.link.ReadContext(sending)
		if packet == nil {
			return
		}
		frame := packet.ToView()
		err := t.socket.Write(ctx, websocket.MessageBinary, message(typeFrame, frame.AsSlice()))
		frame.Release()
		packet.DecRef()
		if err != nil {
			return // the reader says why
		}
	}
}

// receive takes the server's messages to the stack until the connection ends, and says how it did.
func (t *tunnel) receive(ctx context.Context) error {
	for {
		kind, data, err := t.socket.Read(ctx)
		if err != nil {
			return err
		}
		if kind != websocket.MessageBinary || len(data) < headerBytes || data[0] != magic || data[1] != version {
			continue
		}
		if err := t.handle(ctx, data[2], data[headerBytes:]); err != nil {
			return err
		}
	}
}

func (t *tunnel) handle(ctx context.Context, kind byte, payload []byte) error {
	switch kind {
	case typeFrame:
		packet := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(payload)})
		t.link.InjectInbound(0, packet)
		packet.DecRef()
	case typePing:
		return t.socket.Write(ctx, websocket.MessageBinary, message(typePong, payload))
	case typeError:
		fmt.Fprintf(os.Stderr, "gvisor: the server's error: %q\n", payload)
	}
	return nil
}

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	echoPort       = 7
	halfCloseBytes = 20000
	echoed         = "echoed-over-udp"
)

// checkAll tries everything once and returns how many checks failed.
func checkAll(ctx context.Context, g *guest, web string) int {
	server, err := netip.ParseAddr(web)
	if err != nil {
		fmt.Println("AERO-CHECK arguments failed", err)
		return 1
	}
	client := &http.Client{Transport: &http.Transport{DialContext: g.dial, DisableKeepAlives: true}}
	echo := netip.AddrPortFrom(server, echoPort)
	var file []byte
	failed := 0
	check := func(name string, run func() (string, error)) {
		seen, err := run()
		if err != nil {
			failed++
			fmt.Println("AERO-CHECK", name, "failed", err)
			return
		}
		fmt.Println("AERO-CHECK", name, "ok", seen)
	}
	check("lease", func() (string, error) { return text(g.bind()) })
	check("ping", g.pingGateway)
	check("dns-udp", func() (string, error) { return g.lookUp(ctx, "udp", "web.example.test.", "A") })
	check("dns-tcp", func() (string, error) { return g.lookUp(ctx, "tcp", "big.example.test.", "TXT") })
	check("http-by-name", func() (string, error) {
		body, err := get(ctx, client, "http://web.example.test/hello")
		return strings.TrimSpace(string(body)), err
	})
	check("download", func() (string, error) {
		file, err = get(ctx, client, "http://"+web+"/16MiB")
		return fmt.Sprintf("%x", sha256.Sum256(file)), err
	})
	check("upload", func() (string, error) { return upload(ctx, client, "http://"+web+"/upload", file) })
	check("half-close", func() (string, error) { return g.halfClose(ctx, echo) })
	check("udp-echo", func() (string, error) { return g.echo(echo, echoed) })
	check("renewal", func() (string, error) { return text(g.renew()) })
	return failed
}

func text(what fmt.Stringer, err error) (string, error) {
	return what.String(), err
}

func (g *guest) pingGateway() (string, error) {
	conn, err := g.pinger(g.lease.router)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	request := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize+len(echoed)))
	request.SetType(header.ICMPv4Echo)
	request.SetSequence(1)
	copy(request.Payload(), echoed)
	send := func() error {
		_, err := conn.Write(request)
		return err
	}
	err = ask(conn, send, func(data []byte) bool {
		reply := header.ICMPv4(data)
		return len(data) >= header.ICMPv4MinimumSize && reply.Type() == header.ICMPv4EchoReply &&
			reply.Sequence() == 1 && string(reply.Payload()) == echoed
	})
	return "1 packets received", err
}

func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return body(client, request)
}

// upload posts a file and returns what the server says of it: its SHA-256.
func upload(ctx context.Context, client *http.Client, url string, file []byte) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(file))
	if err != nil {
		return "", err
	}
	said, err := body(client, request)
	return strings.TrimSpace(string(said)), err
}

func body(client *http.Client, request *http.Request) ([]byte, error) {
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, errors.New(response.Status)
	}
	return io.ReadAll(response.Body)
}

func pattern(size int) []byte {
	made := make([]byte, size)
	for index := range made {
		made[index] = byte(index*31 + index/251)
	}
	return made
}

// halfClose sends bytes and then FIN; the echo has to come back whole, and something behind it.
func (g *guest) halfClose(ctx context.Context, to netip.AddrPort) (string, error) {
	conn, err := g.dialTCP(ctx, to)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	sent := pattern(halfCloseBytes)
	if _, err := conn.Write(sent); err != nil {
		return "", err
	}
	if err := conn.CloseWrite(); err != nil {
		return "", err
	}
	reply, err := io.ReadAll(conn)
	intact := 0
	for index := range min(len(reply), len(sent)) {
		if reply[index] == sent[index] {
			intact++
		}
	}
	rest := reply[min(len(reply), len(sent)):]
	return fmt.Sprintf("%s intact %d of %d", bytes.TrimSpace(rest), intact, len(sent)), err
}

func (g *guest) echo(to netip.AddrPort, what string) (string, error) {
	conn, err := g.dialUDP(to)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	send := func() error {
		_, err := conn.Write([]byte(what))
		return err
	}
	var seen string
	err = ask(conn, send, func(data []byte) bool {
		seen = string(data)
		return true
	})
	return seen, err
}

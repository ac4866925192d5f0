package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

var recordTypes = map[string]dnsmessage.Type{"A": dnsmessage.TypeA, "TXT": dnsmessage.TypeTXT}

// lookUp asks the lease's DNS server over udp or tcp, without EDNS, and tells the answer as guestnet.c does.
func (g *guest) lookUp(ctx context.Context, network, name, kind string) (string, error) {
	question := dnsmessage.Question{
		Name: dnsmessage.MustNewName(name), Type: recordTypes[kind], Class: dnsmessage.ClassINET,
	}
	message := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true},
		Questions: []dnsmessage.Question{question},
	}
	packed, err := message.Pack()
	if err != nil {
		return "", err
	}
	conn, err := g.nameserver(ctx, network, "")
	if err != nil {
		return "", err
	}
	defer conn.Close()
	query := queryOverUDP
	if network == "tcp" {
		query = queryOverTCP
	}
	data, err := query(conn, packed)
	if err != nil {
		return "", err
	}
	return describe(data)
}

func queryOverUDP(conn net.Conn, query []byte) ([]byte, error) {
	send := func() error {
		_, err := conn.Write(query)
		return err
	}
	var reply []byte
	err := ask(conn, send, func(data []byte) bool {
		reply = append([]byte(nil), data...)
		return len(data) >= 2 && data[0] == query[0] && data[1] == query[1]
	})
	return reply, err
}

// queryOverTCP is RFC 1035 section 4.2.2: two bytes of length before each message.
func queryOverTCP(conn net.Conn, query []byte) ([]byte, error) {
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	reply := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(conn, reply)
	return reply, err
}

func describe(data []byte) (string, error) {
	var message dnsmessage.Message
	if err := message.Unpack(data); err != nil {
		return "", err
	}
	truncated := 0
	if message.Truncated {
		truncated = 1
	}
	seen := fmt.Sprintf("rcode %d tc %d answers %d bytes %d", message.RCode, truncated, len(message.Answers), len(data))
	if len(message.Answers) == 1 {
		if record, ok := message.Answers[0].Body.(*dnsmessage.AResource); ok {
			seen += " " + netip.AddrFrom4(record.A).String()
		}
	}
	return seen, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	card          tcpip.NICID = 1
	datagramTries             = 20
	maxDatagram               = 65535
)

// guest is a network stack with one card, and what its lease says.
type guest struct {
	stack *stack.Stack
	lease lease
}

func newGuest(link stack.LinkEndpoint) (*guest, error) {
	made := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{arp.NewProtocol, ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4,
		},
	})
	sack := tcpip.TCPSACKEnabled(true) // off unless asked for
	if err := made.SetTransportProtocolOption(tcp.ProtocolNumber, &sack); err != nil {
		return nil, errors.New(err.String())
	}
	if err := made.CreateNIC(card, ethernet.New(link)); err != nil {
		return nil, errors.New(err.String())
	}
	return &guest{stack: made}, nil
}

// setAddress replaces the card's address.
func (g *guest) setAddress(address netip.Prefix) error {
	for _, old := range g.stack.AllAddresses()[card] {
		if err := g.stack.RemoveAddress(card, old.AddressWithPrefix.Address); err != nil {
			return errors.New(err.String())
		}
	}
	protocolAddress := tcpip.ProtocolAddress{
		Protocol: ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{
			Address: tcpip.AddrFrom4(address.Addr().As4()), PrefixLen: address.Bits(),
		},
	}
	if err := g.stack.AddProtocolAddress(card, protocolAddress, stack.AddressProperties{}); err != nil {
		return errors.New(err.String())
	}
	return nil
}

// configure applies a lease.
func (g *guest) configure(granted lease) error {
	if err := g.setAddress(granted.address); err != nil {
		return err
	}
	network := tcpip.AddressWithPrefix{
		Address: tcpip.AddrFrom4(granted.address.Addr().As4()), PrefixLen: granted.address.Bits(),
	}
	g.stack.SetRouteTable([]tcpip.Route{
		{Destination: network.Subnet(), NIC: card},
		{Destination: defaultDestination(), Gateway: tcpip.AddrFrom4(granted.router.As4()), NIC: card},
	})
	g.lease = granted
	return nil
}

func defaultDestination() tcpip.Subnet {
	return tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4([4]byte{})}.Subnet()
}

func fullAddress(to netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: card, Addr: tcpip.AddrFrom4(to.Addr().As4()), Port: to.Port()}
}

// broadcaster is a UDP socket on a port of the guest's that may send to everybody, which those of gonet.DialUDP may not.
func (g *guest) broadcaster(port uint16) (*gonet.UDPConn, error) {
	var queue waiter.Queue
	endpoint, err := g.stack.NewEndpoint(udp.ProtocolNumber, ipv4.ProtocolNumber, &queue)
	if err != nil {
		return nil, errors.New(err.String())
	}
	endpoint.SocketOptions().SetBroadcast(true)
	if err := endpoint.Bind(tcpip.FullAddress{NIC: card, Port: port}); err != nil {
		endpoint.Close()
		return nil, errors.New(err.String())
	}
	return gonet.NewUDPConn(&queue, endpoint), nil
}

// pinger is a socket for echo requests to one address: it takes and gives whole ICMP messages.
func (g *guest) pinger(to netip.Addr) (net.Conn, error) {
	var queue waiter.Queue
	endpoint, err := g.stack.NewEndpoint(icmp.ProtocolNumber4, ipv4.ProtocolNumber, &queue)
	if err != nil {
		return nil, errors.New(err.String())
	}
	if err := endpoint.Connect(fullAddress(netip.AddrPortFrom(to, 0))); err != nil {
		endpoint.Close()
		return nil, errors.New(err.String())
	}
	return gonet.NewUDPConn(&queue, endpoint), nil
}

func (g *guest) dialUDP(to netip.AddrPort) (net.Conn, error) {
	remote := fullAddress(to)
	return gonet.DialUDP(g.stack, nil, &remote, ipv4.ProtocolNumber)
}

func (g *guest) dialTCP(ctx context.Context, to netip.AddrPort) (*gonet.TCPConn, error) {
	conn, err := gonet.DialContextTCP(ctx, g.stack, fullAddress(to), ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", to, err)
	}
	if until, ok := ctx.Deadline(); ok {
		err = conn.SetDeadline(until)
	}
	return conn, err
}

// nameserver is a connection to the lease's DNS server, whatever address was asked for: net.Resolver would take
// those of this machine's resolv.conf.
func (g *guest) nameserver(ctx context.Context, network, _ string) (net.Conn, error) {
	server := netip.AddrPortFrom(g.lease.dns, 53)
	if network == "tcp" {
		return g.dialTCP(ctx, server)
	}
	return g.dialUDP(server)
}

// dial is net.Dialer.DialContext on this stack, for addresses and names.
func (g *guest) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		return nil, err
	}
	to, err := netip.ParseAddr(host)
	if err != nil {
		resolver := net.Resolver{PreferGo: true, Dial: g.nameserver}
		found, err := resolver.LookupNetIP(ctx, "ip4", host+".")
		if err != nil {
			return nil, err
		}
		to = found[0].Unmap()
	}
	return g.dialTCP(ctx, netip.AddrPortFrom(to, uint16(number)))
}

// ask sends a datagram until an answer comes that `accept` takes: datagrams may be lost.
func ask(conn net.Conn, send func() error, accept func([]byte) bool) error {
	reply := make([]byte, maxDatagram)
	for range datagramTries {
		if err := send(); err != nil {
			return err
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		for {
			size, err := conn.Read(reply)
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
				break
			}
			if err != nil {
				return err
			}
			if accept(reply[:size]) {
				return nil
			}
		}
	}
	return fmt.Errorf("no answer to %d datagrams", datagramTries)
}

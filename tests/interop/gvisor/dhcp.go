package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// lease is what a DHCPACK grants (RFC 2131, RFC 2132).
type lease struct {
	address             netip.Prefix
	router, dns, server netip.Addr
	duration            time.Duration
	mtu                 uint16
	ack                 *dhcpv4.DHCPv4
}

func (l lease) String() string {
	return fmt.Sprintf("%s router %s dns %s lease %.0f server %s mtu %d",
		l.address, l.router, l.dns, l.duration.Seconds(), l.server, l.mtu)
}

func leaseOf(ack *dhcpv4.DHCPv4) (lease, error) {
	routers, servers := ack.Router(), ack.DNS()
	mtu := ack.Options.Get(dhcpv4.OptionInterfaceMTU)
	mask := ack.SubnetMask()
	if len(routers) != 1 || len(servers) != 1 || len(mtu) != 2 || mask == nil {
		return lease{}, fmt.Errorf("an ACK without what was asked for: %s", ack.Summary())
	}
	bits, _ := mask.Size()
	return lease{
		address:  netip.PrefixFrom(addressOf(ack.YourIPAddr), bits),
		router:   addressOf(routers[0]),
		dns:      addressOf(servers[0]),
		server:   addressOf(ack.ServerIdentifier()),
		duration: ack.IPAddressLeaseTime(0),
		mtu:      binary.BigEndian.Uint16(mtu),
		ack:      ack,
	}, nil
}

func addressOf(ip net.IP) netip.Addr {
	address, _ := netip.AddrFromSlice(ip)
	return address.Unmap()
}

func wanted() dhcpv4.Modifier {
	return dhcpv4.WithRequestedOptions(
		dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer,
		dhcpv4.OptionIPAddressLeaseTime, dhcpv4.OptionInterfaceMTU,
	)
}

// bind is RFC 2131 section 3.1: DISCOVER, OFFER, REQUEST, ACK, all of them to everybody.
func (g *guest) bind() (lease, error) {
	// A socket sends only with an address, and hears broadcasts only of a network that has them.
	if err := g.setAddress(netip.PrefixFrom(netip.IPv4Unspecified(), 0)); err != nil {
		return lease{}, err
	}
	everybody := dhcpv4.WithBroadcast(true)
	discover, err := dhcpv4.NewDiscovery(net.HardwareAddr(guestHardware), everybody, wanted())
	if err != nil {
		return lease{}, err
	}
	offer, err := g.exchange(discover, net.IPv4bcast, dhcpv4.MessageTypeOffer)
	if err != nil {
		return lease{}, err
	}
	request, err := dhcpv4.NewRequestFromOffer(offer, everybody, wanted())
	if err != nil {
		return lease{}, err
	}
	ack, err := g.exchange(request, net.IPv4bcast, dhcpv4.MessageTypeAck)
	if err != nil {
		return lease{}, err
	}
	granted, err := leaseOf(ack)
	if err != nil {
		return lease{}, err
	}
	return granted, g.configure(granted)
}

// renew is RFC 2131 section 4.4.5: a REQUEST to the server alone, from the address that is to be kept.
func (g *guest) renew() (lease, error) {
	if g.lease.ack == nil {
		return lease{}, errors.New("there is no lease")
	}
	request, err := dhcpv4.NewRenewFromAck(g.lease.ack, wanted())
	if err != nil {
		return lease{}, err
	}
	ack, err := g.exchange(request, g.lease.server.AsSlice(), dhcpv4.MessageTypeAck)
	if err != nil {
		return lease{}, err
	}
	return leaseOf(ack)
}

// exchange sends a message until its answer comes; an answer of another type than the wanted one is an error.
func (g *guest) exchange(request *dhcpv4.DHCPv4, to net.IP, want dhcpv4.MessageType) (*dhcpv4.DHCPv4, error) {
	conn, err := g.broadcaster(dhcpv4.ClientPort)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	send := func() error {
		_, err := conn.WriteTo(request.ToBytes(), &net.UDPAddr{IP: to, Port: dhcpv4.ServerPort})
		return err
	}
	var reply *dhcpv4.DHCPv4
	err = ask(conn, send, func(data []byte) bool {
		message, err := dhcpv4.FromBytes(data)
		if err != nil || message.TransactionID != request.TransactionID {
			return false
		}
		reply = message
		return true
	})
	if err == nil && reply.MessageType() != want {
		err = fmt.Errorf("%s was answered by %s", request.MessageType(), reply.MessageType())
	}
	return reply, err
}

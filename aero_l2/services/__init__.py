"""What the gateway 10.0.2.2 offers the guest itself: an address (DHCP) and name resolution (DNS)."""

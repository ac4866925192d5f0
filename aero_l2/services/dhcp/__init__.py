"""DHCP for the one guest of a tunnel: always the same lease, no state (RFC 2131, RFC 2132)."""

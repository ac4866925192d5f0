"""DNS for the guest: a forwarder from the gateway's port 53 to the host's resolvers (RFC 1035, RFC 5625)."""

"""Bytes of the WebSocket and of the tunnel protocol: pure, no sockets, no clock."""

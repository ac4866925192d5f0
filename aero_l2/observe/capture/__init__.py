"""Captures: pcapng files of tunnels, written by one thread of their own (docs/captures.md)."""

"""Machines at a tunnel's other end: sockets of emulators, TAP devices, commands in a network of their own."""

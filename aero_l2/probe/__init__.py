"""`aero-l2 probe`: checks a deployment from a guest's seat. docs/probe.md.

packets, tcp, stack, dhcp    a guest's network stack: bytes in, bytes out, no clock of its own
guest                        the same on a tunnel, with asyncio's clock
targets, names, http         what it talks to, and how
steps, traffic, run          what is done, in order, and how long it took
outcome, report, monitoring  what came of it, for people and for programs
"""

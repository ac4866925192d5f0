"""The NAT process of a tunnel, behind a small driver interface."""

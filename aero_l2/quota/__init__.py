"""Limits that the process gives itself and its tunnels."""

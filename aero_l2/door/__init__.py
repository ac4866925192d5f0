"""The door: HTTP, the upgrade and its checks."""

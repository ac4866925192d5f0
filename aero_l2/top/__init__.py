"""`aero-l2 top`: a live view of a server from its admin socket and its metrics (docs/admin.md)."""

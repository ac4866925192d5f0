"""The admin socket: what an operator of this host asks the server, and has it do (docs/admin.md)."""

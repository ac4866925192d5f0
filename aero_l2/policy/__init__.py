"""What a guest may reach: decisions on addresses and ports, as plain values without any I/O."""

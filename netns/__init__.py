"""Linux network namespaces for tunnels: made by one privileged process, handed over as file descriptors."""

"""Who asks, from where, for which host: rules on the headers Origin, Host and Forwarded. Pure."""

"""`aero-l2 doctor`: whether this host can serve, by trying; `serve` does some of it when it starts."""

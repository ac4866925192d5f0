"""The wiring: settings in, a running server out. The only place that knows every part."""

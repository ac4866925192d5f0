"""A tunnel from the upgrade to its end: states, pump, closing."""

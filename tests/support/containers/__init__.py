"""Container engines of the tests' own: images are built, never pulled; daemons live inside a test."""

"""Servers on this machine behind a link with a given round trip and rate, for tools/remote.py."""

"""Writing files safely: a file appears whole or not at all, and replaces only a file of its own kind.

May import system.
"""

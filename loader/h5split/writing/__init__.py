"""How files are written: each appears under its name whole or not at all, and replaces only its own kind.

May import system.
"""

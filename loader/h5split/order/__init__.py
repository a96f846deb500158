"""Which rows, in which order.

May import system, writing and file.
"""

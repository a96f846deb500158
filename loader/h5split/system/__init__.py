"""The machine and the terminal: processors, memory, interrupts, what commands print.

Imports nothing of h5split outside this folder.
"""

"""The machine and the terminal: processors, memory, interrupts, and the output of commands.

Imports nothing of h5split outside this folder.
"""

"""One batch: rows gathered into a reused buffer, and which predictions of it are wrong.

May import system, writing, file and order.
"""

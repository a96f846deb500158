"""Batches: copying of rows into reused buffers, read-ahead, and finding wrong predictions.

May import system, writing, file and order.
"""

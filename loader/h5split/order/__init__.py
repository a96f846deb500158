"""Selection and order of rows: splits, shuffles, epochs, settings.

May import system, writing and file.
"""

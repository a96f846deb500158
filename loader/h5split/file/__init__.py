"""The pack as a file: the format, reading of one pack or several through memory maps, and sealing of a new pack.

May import system and writing.
"""

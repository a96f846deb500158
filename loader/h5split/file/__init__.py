"""The pack as a file: its format, reading one or several through memory maps, and sealing a new one.

May import system and writing.
"""

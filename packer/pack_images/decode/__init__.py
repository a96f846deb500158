"""Decode the bytes of one file into one row of pixels. Depends on settings; knows no plans, output files or workers."""

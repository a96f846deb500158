"""The bytes of one file become one row of pixels. It knows settings, and nothing of plans, files or workers."""

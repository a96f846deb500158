"""Constants that the command needs before it loads any library."""

__version__ = "0.1.0"

MAX_PIXELS = 178_956_970  # per picture, the limit from which Pillow itself refuses

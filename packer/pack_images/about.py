"""What is known before anything is loaded."""

__version__ = "0.1.0"

MAX_PIXELS = 178_956_970  # of a picture: where Pillow itself refuses

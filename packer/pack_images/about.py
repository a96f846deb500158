"""Constants that the command needs before it loads any library."""

from h5split.about import __version__ as __version__

MAX_PIXELS = 178_956_970  # per picture, the limit from which Pillow itself refuses

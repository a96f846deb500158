"""The version of both packages. Everything that needs it reads it here, also the build."""

__version__ = "0.1.0"

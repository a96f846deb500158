"""A page to judge a data set by: one HTML file that needs nothing else."""

from h5split.view.page import report

__all__ = ["report"]

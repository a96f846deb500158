"""A page to judge a data set by: one HTML file that needs nothing else. The documented place of `report`."""

from h5split.commands.view.page import report

__all__ = ["report"]

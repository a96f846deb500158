"""The report: an HTML page that shows the quality of a data set. May import the same as `h5split.commands`."""

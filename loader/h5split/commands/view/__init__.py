"""The report: one HTML page to judge a data set by. May import what `h5split.commands` may."""

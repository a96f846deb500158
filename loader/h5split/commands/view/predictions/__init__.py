"""The section of a page about predictions, a module for each kind of target. May import what `h5split.commands` may."""

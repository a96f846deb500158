"""The work of the commands `h5split info | verify | view | export`.

May import everything in h5split but cli.py, start.py and view.py, which import it.
"""

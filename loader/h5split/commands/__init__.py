"""The functions behind the commands `h5split info | verify | view | export`.

May import everything in h5split except cli.py, start.py and view.py, which import this folder.
"""

"""Packs in object stores and on web servers, and the copies of them that fill on this machine.

objects.py reads bytes of an object through fsspec; layout.py cuts a pack into pieces; folder.py is a folder of copies;
store.py is the files of one; fetching.py fetches pieces into it; copying.py is what the rest of the package uses. Each
may import those named before it, and `h5split.system`.
"""

"""A reader for the part of HDF5 that packs use. It does not need the HDF5 library.

libhdf5 trusts metadata whose checksum is valid: one bad number can make it double-free, divide by zero, loop, or
allocate terabytes. Then the whole process dies. This reader checks that every field lies inside the bytes that were
read, and it limits the amount of metadata. Features that a pack cannot have raise an `Hdf5Error`.

It reads files as HDF5 1.8 and later write them with ``libver="v108"`` or newer. Objects in such files may have headers
of the older version 1. Section numbers in comments refer to the "HDF5 File Format Specification Version 3.0".

metadata.py reads bytes and verifies checksums; heap.py reads links and attributes that are stored outside of headers;
headers.py reads groups and data sets; file.py opens a file. Each may import those named before it, and
`h5split.system`.
"""

"""As much of HDF5 as packs consist of, read without the HDF5 library.

libhdf5 trusts metadata whose checksum is valid: one bad number in the heap that lists many columns can make it free
memory twice, divide by zero, loop or ask for terabytes, and the process ends with it. Here every field is cut out of
bytes that are there, and the amount of metadata that is read is limited. What a pack cannot have is an `Hdf5Error`.

Files are as HDF5 1.8 and later write them with ``libver="v108"`` or newer; objects in them may have older headers.
Section numbers are those of the "HDF5 File Format Specification Version 3.0".

metadata.py reads and checks bytes; heap.py, what is too much for a header; headers.py, objects; file.py opens a file.
Each may import those before it, and `h5split.system`.
"""

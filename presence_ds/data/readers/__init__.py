"""Readers of files, local or on the hub: each yields a file's documents and its bad rows, in order.

Text and json are read here rather than through the loaders of ``datasets``, which stop at the first malformed row and
do not say where a row stood; parquet and arrow through pyarrow, which gives every row before a fault.
"""

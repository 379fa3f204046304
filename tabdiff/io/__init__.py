"""Files and containers of other libraries: reading and writing them, without knowing what a model is.

Tables: ``data_files`` for every kind of file, ``csv_files`` with ``csv_layout`` and ``time_text`` for text, ``frames``
for frames of other libraries. Cells: ``expression`` and ``anndata_writer``. Images: ``images``, ``image_files`` and
``image_grid``. Models: ``model_files``, of what ``serialization`` packs. ``atomic`` writes a file whole or not at all.
"""

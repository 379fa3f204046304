"""Files and containers of other libraries: reading and writing them, without knowing what a model is."""

"""Tables and arrays: columns together, and what holds between them."""

"""Small tools that know nothing of diffusion, tables or estimators.

``array_likes`` and ``memory`` read arrays of any library, ``dtypes`` tells what their dtypes are and describes values,
``random`` has a stream for each row, ``seeding`` lends torch's generator, ``trees`` walks decision trees, ``device``
chooses devices and precision, ``fingerprint`` tells data apart, ``validation`` says what a parameter may be, and
``warnings`` points at who called.
"""

"""Small tools that know nothing of diffusion, tables or estimators."""

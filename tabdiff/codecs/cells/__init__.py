"""Single cells: counts or expression to latents and back."""

"""Sampling methods: ways from noise to rows along a grid of times."""

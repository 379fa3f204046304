"""Noise schedules: how much of a row and how much noise there is at a time."""

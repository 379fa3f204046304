"""What a fit makes, and how: configuration, training data, refinement, autoguidance, persistence."""

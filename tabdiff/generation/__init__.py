"""What is drawn from a fitted model: samples, imputations, solutions of inverse problems, likelihoods."""

"""Correcting drawn rows of a table: marginals, rejection, iterative proportional fitting, balanced sampling."""

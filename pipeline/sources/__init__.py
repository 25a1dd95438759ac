"""Intake drivers, one for each provider format.

They know no experiment and no workspace: an entry goes in, a dataset comes out.
"""

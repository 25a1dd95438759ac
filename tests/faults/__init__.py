"""Faults and promises: which test shows that a promise holds under a fault, and what it said."""

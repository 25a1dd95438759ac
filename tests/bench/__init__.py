"""`make bench`: what the machine does beside what it could do, and beside others."""

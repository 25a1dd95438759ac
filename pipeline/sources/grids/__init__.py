"""Fields on a grid, of files or arrays: looked over, joined by day, and given as asked for."""

"""Code shared by drivers: mappings of entries, remote access, dates, units and Earthdata Login."""

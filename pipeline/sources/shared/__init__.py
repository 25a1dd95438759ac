"""What drivers share: mappings of entries, remote access, dates, units and Earthdata Login."""

"""OGBench's published data sets."""

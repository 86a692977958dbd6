"""Data sets made by OGBench's own oracles, in OGBench's file format."""

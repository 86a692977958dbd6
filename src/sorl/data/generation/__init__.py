"""Generates data sets with OGBench's own oracles, in OGBench's file format."""

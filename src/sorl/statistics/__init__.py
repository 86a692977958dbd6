"""Intervals, tables and aggregates of success rates."""

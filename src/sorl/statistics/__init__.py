"""Confidence intervals, tables and aggregates of success rates."""

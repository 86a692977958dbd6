"""Interfaces to the machine: files, locks, signals, processes, progress, compilation and command lines."""

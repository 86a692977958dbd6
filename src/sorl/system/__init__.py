"""What touches the machine: files, locks, signals, processes, progress, compilation, command lines."""

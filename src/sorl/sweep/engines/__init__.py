"""Where runs are trained: processes on this machine, or a Ray cluster."""

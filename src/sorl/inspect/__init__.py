"""The data report: what recorded data hold, and what to do about it before training."""

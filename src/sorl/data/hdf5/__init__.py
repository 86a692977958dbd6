"""Data in HDF5 files: D4RL's layout and robomimic's."""

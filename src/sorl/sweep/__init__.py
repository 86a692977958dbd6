"""Many runs: a grid of agents, environments, seeds and options, on one machine, a Ray cluster or Slurm."""

"""The environments that policies play in: OGBench's and Gymnasium's, in this process or in worker processes.

- `interface`: what an environment is.
- `ogbench`, `gymnasium`: the two implementations; `named` chooses between them by the environment's name.
- `serial`, `pool`: several at once, in this process or in a worker process each (`worker`).
- `names`: OGBench's names; `simulators`: how OGBench's environments are made; `generator`: numpy's global generator.

Nothing here imports jax: the worker processes import this room.
"""

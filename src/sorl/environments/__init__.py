"""The environments in which policies are evaluated: OGBench's and Gymnasium's, in this or in worker processes.

- `interface`: the protocol of an environment.
- `ogbench`, `gymnasium`: the two implementations; `named` chooses between them by the environment's name.
- `serial`, `pool`: several environments, in this process or in one worker process each (`worker`).
- `names`: OGBench's names; `simulators`: creation of OGBench's environments; `generator`: numpy's global generator.

Nothing here imports jax, because the worker processes import this package.
"""

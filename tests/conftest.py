import os


# Before jax is imported: tests run on the CPU, and every product in full float32.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

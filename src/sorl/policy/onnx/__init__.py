"""A policy at one budget as an ONNX file: the translation, the parity check, and the contract beside the file.

The translation is sorl's own: the programs of actors consist of some forty JAX primitives, each with an exact
counterpart in ONNX, and every file is compared with the live policy before it is written. (The package jax2onnx
translates more, but it needs an older orbax-checkpoint than sorl, so the two cannot be installed together.)
"""

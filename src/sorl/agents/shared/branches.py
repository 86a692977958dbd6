"""Functions with one compiled branch per choice; only the branch of the drawn choice runs."""

from functools import partial
from typing import Any

import jax
from jaxtyping import Array, Int, PyTree


_grad = partial(jax.grad, has_aux=True)


def one_of(function: Any, argument: PyTree, index: Int[Array, ""], choices: tuple[int, ...]) -> PyTree:
    """`function(argument, k)` for k = `choices[index]`; all branches are compiled, and one runs."""
    branches = [partial(function, steps=steps) for steps in choices]
    return branches[0](argument) if len(branches) == 1 else jax.lax.switch(index, branches, argument)


def gradient_of_one(
    loss: Any, networks: PyTree, index: Int[Array, ""], choices: tuple[int, ...], *, grad: Any = _grad
) -> tuple[PyTree, PyTree]:
    """Gradient and auxiliary values of `loss(networks, k)` for k = `choices[index]`.

    The gradient is computed inside each branch; a gradient of the switch itself would store every branch's residuals.
    """
    return one_of(lambda networks, steps: grad(loss)(networks, steps), networks, index, choices)

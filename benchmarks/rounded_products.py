"""What does training lose if the factors of its matrix products have fewer digits, as in TF32 and bfloat16?

This is a module of agents for `--agent-module`: Sorl with rounded factors in every matrix product of an update, and
float32 in everything else. A GPU makes products in TF32 from such factors, and a TPU products in bfloat16, so their
success can be compared on a CPU.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
from jax.extend import core
from jax.extend.core import ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]  # jax 0.12 gives it another name

import sorl


BITS = {"tensorfloat32": 10, "bfloat16": 7}
"""Bits of the fraction; both have float32's 8 bits of exponent."""


def with_rounded_products(function: Callable[..., Any], bits: int) -> Callable[..., Any]:
    """`function` with both factors of each matrix product rounded to `bits` bits of the fraction, to nearest.

    Differentiate first: `function` may take gradients, and their products are rounded like the others.
    """

    def rounded(*arguments: Any) -> Any:
        closed, dynamic, static = eqx.filter_make_jaxpr(function)(*arguments)
        arrays = jax.tree.leaves(eqx.filter(arguments, eqx.is_array))
        results = _evaluate(closed, arrays, bits)
        return eqx.combine(jax.tree.unflatten(jax.tree.structure(dynamic), results), static)

    return rounded


def _evaluate(closed: ClosedJaxpr, inputs: Sequence[Any], bits: int) -> list[Any]:
    """Evaluates a traced function equation by equation, with rounded factors of products."""
    jaxpr = closed.jaxpr
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True)) | dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atoms: Sequence[Any]) -> list[Any]:
        return [atom.val if isinstance(atom, core.Literal) else values[atom] for atom in atoms]

    for equation in jaxpr.eqns:
        operands, name = read(equation.invars), equation.primitive.name
        inner = _inner(equation.params)
        if name == "dot_general":
            operands = [jax.lax.reduce_precision(operand, 8, bits) for operand in operands]
        if not inner:
            results = equation.primitive.bind(*operands, **equation.params)
        elif name == "cond":
            branches = [_as_function(branch, bits) for branch in equation.params["branches"]]
            results = jax.lax.switch(operands[0], branches, *operands[1:])
        elif name in CALLS and len(inner) == 1:
            results = _evaluate(inner[0], operands, bits)
        else:
            raise NotImplementedError(f"The function has a {name} of functions; say here how it is evaluated.")
        results = results if equation.primitive.multiple_results else [results]
        values |= dict(zip(equation.outvars, results, strict=True))
    return read(jaxpr.outvars)


CALLS = "jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint"
"""Primitives that call one function; their derivatives have been taken already."""


def _inner(params: dict[str, Any]) -> list[ClosedJaxpr]:
    """The traced functions among an equation's parameters."""
    leaves = [leaf for value in params.values() for leaf in (value if isinstance(value, tuple) else (value,))]
    return [leaf for leaf in leaves if isinstance(leaf, ClosedJaxpr)]


def _as_function(closed: ClosedJaxpr, bits: int) -> Callable[..., Any]:
    return lambda *inputs: _evaluate(closed, inputs, bits)


@sorl.register_agent
class SorlTf32(sorl.Sorl):
    """SORL whose products in training have factors of TF32."""

    def update(self, state: Any, batch: Any, draws: Any, shared: Any) -> Any:
        """The update of SORL with rounded factors."""
        rounded = with_rounded_products(partial(sorl.Sorl.update, self), BITS["tensorfloat32"])
        return rounded(state, batch, draws, shared)


@sorl.register_agent
class SorlBfloat16(sorl.Sorl):
    """SORL whose products in training have factors of bfloat16."""

    def update(self, state: Any, batch: Any, draws: Any, shared: Any) -> Any:
        """The update of SORL with rounded factors."""
        rounded = with_rounded_products(partial(sorl.Sorl.update, self), BITS["bfloat16"])
        return rounded(state, batch, draws, shared)

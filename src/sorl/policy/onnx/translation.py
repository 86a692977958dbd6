"""Translates a JAX program with a symbolic batch size to an ONNX model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend.core import (
    ClosedJaxpr,  # pyright: ignore[reportPrivateImportUsage]  # jax 0.12 gives it another name
    Literal,
)

from sorl.policy.onnx.graph import IR_VERSION, OPSET, Graph, Value
from sorl.policy.onnx.rules import RULES


INLINED = {
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
    "remat2": "jaxpr",
}
"""Primitives that call another program, and the parameter that holds it; they are replaced by that program."""

Known = Value | np.ndarray
"""An array of the graph, or one that does not depend on the inputs and is computed during the translation."""


def translate(
    function: Callable[..., Any], inputs: Mapping[str, jax.ShapeDtypeStruct], output: str, about: Mapping[str, str]
) -> onnx.ModelProto:
    """The ONNX model of a jitted function of arrays with one array as its result.

    **Arguments:** `inputs` by name, in the order of the function's arguments, the first with the symbolic size `batch`
    of its first axis; the name of the `output`; `about`, entries of the model's metadata.

    Raises a `ValueError`, one sentence, if the program has something without an ONNX form.
    """
    # Translate the program, equation by equation.
    traced = jax.jit(function).trace(*inputs.values()).jaxpr
    names = list(inputs)
    graph = Graph(names[0])
    values = [Value(name, struct.shape, struct.shape) for name, struct in inputs.items()]
    (result,) = _run(graph, traced, values)
    name = graph.full(_value(graph, result))
    graph.nodes.append(onnx.helper.make_node("Identity", [name], [output], name=output))
    # Build the model of the nodes and constants that the output needs.
    (out,) = traced.out_avals
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            _needed(graph.nodes, output),
            "policy",
            [_described(name, struct) for name, struct in inputs.items()],
            [_described(output, out)],
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="sorl",
    )
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(constant for name, constant in graph.constants.items() if name in used)
    onnx.helper.set_model_props(model, dict(about))
    # Check types and shapes too, so that no runtime gets an invalid file.
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].removesuffix(".")
        raise ValueError(
            f"The policy's program has something that ONNX does not take ({reason}); export it with --format stablehlo."
        ) from error
    return model


def _described(name: str, array: Any) -> onnx.ValueInfoProto:
    shape = [str(size) if jax.export.is_symbolic_dim(size) else int(size) for size in array.shape]
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype)), shape)


def _needed(nodes: Sequence[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    """The nodes on which the output depends, in their order."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]


def _run(graph: Graph, program: ClosedJaxpr, inputs: Sequence[Known]) -> list[Known]:
    """Translates a program for these inputs; what depends on none of them is computed now."""
    jaxpr = program.jaxpr
    known: dict[Any, Known] = dict(zip(jaxpr.constvars, map(np.asarray, program.consts), strict=True))
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Known:
        if not isinstance(atom, Literal):
            return known[atom]
        return np.asarray(atom.val, atom.aval.dtype)  # pyright: ignore[reportAttributeAccessIssue]

    for equation in jaxpr.eqns:
        arguments = [read(atom) for atom in equation.invars]
        known |= dict(zip(equation.outvars, _results(graph, equation, arguments), strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _results(graph: Graph, equation: Any, arguments: list[Known]) -> Sequence[Known]:
    name = equation.primitive.name
    if name in INLINED:
        program = equation.params[INLINED[name]]
        closed = program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program, [])
        return _run(graph, closed, arguments)
    if name == "optimization_barrier":
        return arguments
    if name == "scan":
        return _unrolled(graph, equation, arguments)
    if _is_constant(equation, arguments):
        found = equation.primitive.bind(*arguments, **equation.params)
        return [np.asarray(array) for array in (found if equation.primitive.multiple_results else [found])]
    if name not in RULES:
        raise ValueError(
            f"The policy's program has the JAX primitive {name}, which has no ONNX form here; write the actor with "
            "others, or export it with --format stablehlo."
        )
    results = RULES[name](graph, equation, *(_value(graph, argument) for argument in arguments))
    return results if isinstance(results, list) else [results]


def _is_constant(equation: Any, arguments: list[Known]) -> bool:
    sizes = [size for variable in equation.outvars for size in variable.aval.shape]
    return all(isinstance(argument, np.ndarray) for argument in arguments) and not any(
        map(jax.export.is_symbolic_dim, sizes)
    )


def _value(graph: Graph, known: Known) -> Value:
    return known if isinstance(known, Value) else graph.constant(known)


def _unrolled(graph: Graph, equation: Any, arguments: list[Known]) -> list[Known]:
    """A loop of known length, as its steps one after another."""
    length, program = equation.params["length"], equation.params["jaxpr"]
    # Versions of jax state these counts in different ways. In all of them only rows have one axis more outside.
    inside = program.jaxpr
    carries = sum(map(_same_rank, equation.outvars, inside.outvars))
    consts = sum(map(_same_rank, equation.invars, inside.invars)) - carries
    fixed, carry, rows = arguments[:consts], arguments[consts : consts + carries], arguments[consts + carries :]
    stacked: list[list[Value]] = []
    for step in range(length)[:: -1 if equation.params["reverse"] else 1]:
        results = _run(graph, program, [*fixed, *carry, *(_row(graph, row, step) for row in rows)])
        carry = results[:carries]
        stacked.append([_value(graph, result) for result in results[carries:]])
    if equation.params["reverse"]:
        stacked.reverse()
    shapes = [variable.aval.shape for variable in equation.outvars[carries:]]
    return [
        *carry,
        *(
            Value(graph.add("Concat", *(graph.unsqueeze(graph.full(row), [0]) for row in column), axis=0), shape, shape)
            for column, shape in zip(zip(*stacked, strict=True), shapes, strict=True)
        ),
    ]


def _same_rank(one: Any, other: Any) -> bool:
    return len(one.aval.shape) == len(other.aval.shape)


def _row(graph: Graph, array: Known, index: int) -> Known:
    if isinstance(array, np.ndarray):
        return array[index]
    row = graph.add("Gather", graph.full(array), graph.constant(np.asarray(index)).name, axis=0)
    return Value(row, array.shape[1:], array.shape[1:])

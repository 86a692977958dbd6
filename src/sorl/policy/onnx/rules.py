"""The ONNX form of each JAX primitive that the programs of actors use."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import onnx
from jax.lax import GatherScatterMode, RoundingMethod

from sorl.policy.onnx.graph import Graph, Shape, Value


Rule = Callable[..., Value | list[Value]]
"""Adds the ONNX form of an equation to a graph; arguments: the graph, the equation and its inputs."""

SAME = {
    "abs": "Abs",
    "add": "Add",
    "and": "And",
    "ceil": "Ceil",
    "cos": "Cos",
    "div": "Div",
    "eq": "Equal",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "log": "Log",
    "logistic": "Sigmoid",
    "lt": "Less",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "neg": "Neg",
    "not": "Not",
    "or": "Or",
    "pow": "Pow",
    "sign": "Sign",
    "sin": "Sin",
    "sqrt": "Sqrt",
    "sub": "Sub",
    "tanh": "Tanh",
}
"""Operations on elements with the same meaning in JAX and ONNX."""


def elementwise(graph: Graph, equation: Any, *inputs: Value) -> Value:
    """An operation on elements of the same name."""
    return _of_elements(graph, equation, inputs, lambda *names: graph.add(SAME[equation.primitive.name], *names))


def _composed(make: Callable[..., str]) -> Rule:
    """A rule for a function of elements that takes several operations: `make(graph, equation, *names)`."""

    def rule(graph: Graph, equation: Any, *inputs: Value) -> Value:
        return _of_elements(graph, equation, inputs, lambda *names: make(graph, equation, *names))

    return rule


def _of_elements(graph: Graph, equation: Any, inputs: tuple[Value, ...], make: Callable[..., str]) -> Value:
    # The inputs of a lower rank are scalars, which broadcast too.
    shape = equation.outvars[0].aval.shape
    held = [value.held for value in inputs if len(value.held) == len(shape)]
    widest = tuple(next((size for size in sizes if not _is_one(size)), 1) for sizes in zip(*held, strict=True))
    return Value(make(*(value.name for value in inputs)), widest, shape)


def _is_one(size: Any) -> bool:
    return not jax.export.is_symbolic_dim(size) and size == 1


def _number(graph: Graph, equation: Any, number: int) -> str:
    return graph.constant(np.asarray(number, equation.invars[0].aval.dtype)).name


def _integer_pow(graph: Graph, equation: Any, name: str) -> str:
    exponent = equation.params["y"]
    if exponent in (2, 3):
        square = graph.add("Mul", name, name)
        return square if exponent == 2 else graph.add("Mul", square, name)
    return graph.add("Pow", name, _number(graph, equation, exponent))


def _select_n(graph: Graph, equation: Any, which: str, *cases: str) -> str:
    if len(cases) != 2 or equation.invars[0].aval.dtype != np.bool_:
        raise ValueError("The program selects among several arrays, which has no ONNX form here.")
    return graph.add("Where", which, cases[1], cases[0])


def _convert(graph: Graph, equation: Any, name: str) -> str:
    dtype = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["new_dtype"]))
    return graph.add("Cast", name, to=dtype)


def _broadcast(graph: Graph, equation: Any, value: Value) -> Value:
    shape, axes = equation.params["shape"], [int(axis) for axis in equation.params["broadcast_dimensions"]]
    added = [axis for axis in range(len(shape)) if axis not in axes]
    held = [1] * len(shape)
    for axis, size in zip(axes, value.held, strict=True):
        held[axis] = size
    return Value(graph.unsqueeze(value.name, added), tuple(held), shape)


def _reshape(graph: Graph, equation: Any, value: Value) -> Value:
    shape = equation.params["new_sizes"]
    return Value(graph.reshape(graph.full(value), shape), shape, shape)


def _squeeze(graph: Graph, equation: Any, value: Value) -> Value:
    axes = {int(axis) for axis in equation.params["dimensions"]}
    held = tuple(size for axis, size in enumerate(value.held) if axis not in axes)
    name = graph.add("Squeeze", value.name, graph.whole_numbers(*sorted(axes))) if axes else value.name
    return Value(name, held, equation.outvars[0].aval.shape)


def _transpose(graph: Graph, equation: Any, value: Value) -> Value:
    order = [int(axis) for axis in equation.params["permutation"]]
    name = graph.add("Transpose", value.name, perm=order)
    return Value(name, tuple(value.held[axis] for axis in order), equation.outvars[0].aval.shape)


def _concatenate(graph: Graph, equation: Any, *values: Value) -> Value:
    shape, axis = equation.outvars[0].aval.shape, int(equation.params["dimension"])
    return Value(graph.add("Concat", *map(graph.full, values), axis=axis), shape, shape)


def _stack(graph: Graph, equation: Any, *values: Value) -> Value:
    shape, axis = equation.outvars[0].aval.shape, int(equation.params["axis"])
    rows = [graph.unsqueeze(graph.full(value), [axis]) for value in values]
    return Value(graph.add("Concat", *rows, axis=axis), shape, shape)


def _split(graph: Graph, equation: Any, value: Value) -> list[Value]:
    axis, name, start, parts = int(equation.params["axis"]), graph.full(value), 0, []
    for variable in equation.outvars:
        shape = variable.aval.shape
        bounds = (graph.whole_numbers(number) for number in (start, start + shape[axis], axis))
        parts.append(Value(graph.add("Slice", name, *bounds), shape, shape))
        start += shape[axis]
    return parts


def _round(graph: Graph, equation: Any, name: str) -> str:
    if equation.params["rounding_method"] != RoundingMethod.TO_NEAREST_EVEN:
        raise ValueError("The program rounds halves away from zero, which has no ONNX form here; use jnp.round.")
    return graph.add("Round", name)


def _slice(graph: Graph, equation: Any, value: Value) -> Value:
    shape = equation.outvars[0].aval.shape
    start, limit = equation.params["start_indices"], equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(start)
    whole = [(0, size, 1) for size in value.shape]
    parts = zip(start, limit, strides, strict=True)
    axes = [axis for axis, (part, all_of_it) in enumerate(zip(parts, whole, strict=True)) if part != all_of_it]
    bounds = ([int(numbers[axis]) for axis in axes] for numbers in (start, limit, tuple(range(len(start))), strides))
    name = graph.full(value)
    return Value(graph.add("Slice", name, *(graph.whole_numbers(*numbers) for numbers in bounds)), shape, shape)


def _reduction(operation: str) -> Rule:
    def rule(graph: Graph, equation: Any, value: Value) -> Value:
        shape, axes = equation.outvars[0].aval.shape, graph.whole_numbers(*map(int, equation.params["axes"]))
        return Value(graph.add(operation, graph.full(value), axes, keepdims=0), shape, shape)

    return rule


def _index_of(operation: str) -> Rule:
    def rule(graph: Graph, equation: Any, value: Value) -> Value:
        shape, (axis,) = equation.outvars[0].aval.shape, equation.params["axes"]
        index = graph.add(operation, graph.full(value), axis=int(axis), keepdims=0)
        dtype = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["index_dtype"]))
        return Value(graph.add("Cast", index, to=dtype), shape, shape)

    return rule


def _dot_general(graph: Graph, equation: Any, left: Value, right: Value) -> Value:
    """A product as `MatMul` of [batch, rows, sum] and [batch, sum, columns]."""
    shape = equation.outvars[0].aval.shape
    (left_sum, right_sum), (left_batch, right_batch) = (
        tuple(tuple(map(int, axes)) for axes in pair) for pair in equation.params["dimension_numbers"]
    )
    rows = _others(left.shape, left_sum, left_batch)
    columns = _others(right.shape, right_sum, right_batch)
    batch = tuple(left.shape[axis] for axis in left_batch)
    sums = _product(left.shape, left_sum)
    first = _ordered(graph, left, (*left_batch, *rows, *left_sum))
    second = _ordered(graph, right, (*right_batch, *right_sum, *columns))
    # Without a batch, MatMul takes any number of row axes.
    if batch or len(left_sum) != 1 or not rows:
        first = graph.reshape(first, (*batch, _product(left.shape, rows), sums))
    if len(right_sum) != 1 or len(columns) != 1:
        second = graph.reshape(second, (*batch, sums, _product(right.shape, columns)))
    product = graph.add("MatMul", first, second)
    return Value(graph.reshape(product, shape), shape, shape)


def _others(shape: Shape, *taken: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(axis for axis in range(len(shape)) if not any(axis in axes for axes in taken))


def _ordered(graph: Graph, value: Value, order: tuple[int, ...]) -> str:
    name = graph.full(value)
    return name if order == tuple(range(len(order))) else graph.add("Transpose", name, perm=order)


def _product(shape: Shape, axes: tuple[int, ...]) -> Any:
    return math.prod(shape[axis] for axis in axes)


def _gather(graph: Graph, equation: Any, operand: Value, indices: Value) -> Value:
    """A slice for each index, as `GatherND`: along some axes one row, along the others everything."""
    shape, sizes = equation.outvars[0].aval.shape, equation.params["slice_sizes"]
    numbers = equation.params["dimension_numbers"]
    batch = [int(axis) for axis in numbers.operand_batching_dims]
    indexed = [int(axis) for axis in numbers.start_index_map]
    # A slice of a whole axis can only begin at 0, so its index says nothing.
    columns = [column for column, axis in enumerate(indexed) if sizes[axis] != operand.shape[axis]]
    axes = [indexed[column] for column in columns]
    is_leading = axes == list(range(len(batch), len(batch) + len(axes)))
    leading = batch == list(range(len(batch))) == [int(axis) for axis in numbers.start_indices_batching_dims]
    mode = equation.params["mode"]
    if not (axes and leading and is_leading and all(sizes[axis] == 1 for axis in axes)) or mode not in (
        GatherScatterMode.CLIP,
        GatherScatterMode.PROMISE_IN_BOUNDS,
    ):
        raise ValueError("The program indexes an array in a way that has no ONNX form here.")
    # Take the columns that say something, within bounds, as whole numbers of 64 bits.
    index = graph.add("Gather", graph.full(indices), graph.whole_numbers(*columns), axis=len(indices.shape) - 1)
    index = graph.add("Cast", index, to=onnx.TensorProto.INT64)
    most = graph.whole_numbers(*(int(operand.shape[axis]) - 1 for axis in axes))
    index = graph.add("Min", graph.add("Max", index, graph.whole_numbers(0)), most)
    name = graph.add("GatherND", graph.full(operand), index, batch_dims=len(batch))
    return Value(graph.reshape(name, shape), shape, shape)


RULES: dict[str, Rule] = {
    **dict.fromkeys(SAME, elementwise),
    "argmax": _index_of("ArgMax"),
    "argmin": _index_of("ArgMin"),
    "broadcast_in_dim": _broadcast,
    "clamp": _composed(lambda graph, equation, low, x, high: graph.add("Min", graph.add("Max", x, low), high)),
    "concatenate": _concatenate,
    "convert_element_type": _composed(_convert),
    "copy": _composed(lambda graph, equation, x: x),
    "dot_general": _dot_general,
    "expm1": _composed(lambda graph, equation, x: graph.add("Sub", graph.add("Exp", x), _number(graph, equation, 1))),
    "gather": _gather,
    "integer_pow": _composed(_integer_pow),
    "log1p": _composed(lambda graph, equation, x: graph.add("Log", graph.add("Add", x, _number(graph, equation, 1)))),
    "ne": _composed(lambda graph, equation, x, y: graph.add("Not", graph.add("Equal", x, y))),
    "reduce_max": _reduction("ReduceMax"),
    "reduce_min": _reduction("ReduceMin"),
    "reduce_prod": _reduction("ReduceProd"),
    "reduce_sum": _reduction("ReduceSum"),
    "reshape": _reshape,
    "round": _composed(_round),
    "rsqrt": _composed(lambda graph, equation, x: graph.add("Reciprocal", graph.add("Sqrt", x))),
    "select_n": _composed(_select_n),
    "slice": _slice,
    "split": _split,
    "square": _composed(lambda graph, equation, x: graph.add("Mul", x, x)),
    "squeeze": _squeeze,
    "stack": _stack,
    "stop_gradient": _composed(lambda graph, equation, x: x),
    "transpose": _transpose,
}
"""The rules by the primitive's name."""

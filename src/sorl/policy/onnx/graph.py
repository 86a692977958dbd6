"""An ONNX graph under construction, and the arrays in it."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import onnx


Shape = tuple[Any, ...]
"""Sizes of the axes; a size is a whole number, or symbolic if it depends on the size of the batch."""

OPSET = 18
IR_VERSION = 8
"""The version of the file format that came with `OPSET`, so that runtimes from 2023 on can read the file."""


@dataclasses.dataclass(frozen=True)
class Value:
    """An array of the graph.

    JAX broadcasts with a primitive of its own, while ONNX's operations on elements broadcast by themselves. So an array
    is kept as small as it was before the broadcast: an axis of `held` is that of `shape`, or 1.
    """

    name: str
    held: Shape
    """The shape of the graph's array."""
    shape: Shape
    """The shape that JAX's program gives it."""


class Graph:
    """Collects nodes and constants; each method adds nodes and returns the resulting array, or its name."""

    def __init__(self, batch_of: str):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._batch_of, self._batch = batch_of, ""
        self._names: dict[str, str] = {}

    def add(self, operation: str, *inputs: str, **attributes: Any) -> str:
        """Adds one operation with one result."""
        name = f"{operation.lower()}_{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(operation, inputs, [name], name=name, **attributes))
        return name

    def constant(self, array: np.ndarray) -> Value:
        """Adds a constant, once for all its uses."""
        array = np.asarray(array, order="C")
        content = f"{array.dtype} {array.shape}".encode() + array.tobytes()
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._names:
            self._names[digest] = f"constant_{len(self._names)}"
            self.constants[self._names[digest]] = onnx.numpy_helper.from_array(array, self._names[digest])
        return Value(self._names[digest], array.shape, array.shape)

    def whole_numbers(self, *numbers: int) -> str:
        """Adds a constant vector of 64-bit whole numbers, which ONNX wants for axes and shapes."""
        return self.constant(np.array(numbers, np.int64)).name

    def full(self, value: Value) -> str:
        """The array at its full shape."""
        if value.held == value.shape:
            return value.name
        return self.add("Expand", value.name, self._shape(value.shape))

    def reshape(self, name: str, shape: Shape) -> str:
        """The array in another shape, of which at most one size is symbolic."""
        return self.add("Reshape", name, self.whole_numbers(*inferred(shape)))

    def unsqueeze(self, name: str, axes: Sequence[int]) -> str:
        """The array with new axes of size 1 at these positions of the result."""
        return self.add("Unsqueeze", name, self.whole_numbers(*axes)) if axes else name

    def _shape(self, shape: Shape) -> str:
        """The name of a vector that holds the shape when the graph runs."""
        if not any(map(jax.export.is_symbolic_dim, shape)):
            return self.whole_numbers(*shape)
        if not self._batch:
            self._batch = self.add("Shape", self._batch_of, start=0, end=1)
        for size in shape:
            if jax.export.is_symbolic_dim(size) and str(size) != "batch":
                raise ValueError(f"The program has an array with an axis of size {size}, which has no ONNX form here.")
        sizes = [self._batch if jax.export.is_symbolic_dim(size) else self.whole_numbers(size) for size in shape]
        return self.add("Concat", *sizes, axis=0)


def inferred(shape: Shape) -> list[int]:
    """The shape with -1 for its symbolic size, which ONNX infers; raises a `ValueError` if there are several."""
    sizes = [-1 if jax.export.is_symbolic_dim(size) else int(size) for size in shape]
    if sizes.count(-1) > 1:
        raise ValueError(f"The program has an array of shape {shape}, which has no ONNX form here.")
    return sizes

"""The count of a GPU's kernels, on a program written by hand."""

import pytest
from kernels import Kernel, kernels_of_update, show


PROGRAM = """HloModule jit_train_steps, is_scheduled=true

FileNames
1 "/somewhere/src/sorl/train/loop.py"
2 "/somewhere/site-packages/jax/_src/nn/functions.py"
3 "/somewhere/src/sorl/networks/layers.py"

FunctionNames
1 "one_update"

FileLocations
1 {file_name_id=1 function_name_id=1 line=7 end_line=7 column=2 end_column=9}
2 {file_name_id=2 function_name_id=1 line=50 end_line=50 column=2 end_column=9}
3 {file_name_id=3 function_name_id=1 line=21 end_line=21 column=2 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=3 parent_frame_id=1}
3 {file_location_id=2 parent_frame_id=2}
4 {file_location_id=2}


%fused_add (param_0: f32[8]) -> f32[8] {
  %param_0 = f32[8]{0} parameter(0)
  ROOT %add = f32[8]{0} add(%param_0, %param_0)
}

%commands (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %loop_add_fusion.2 = f32[8]{0} fusion(%a), kind=kLoop, calls=%fused_add, metadata={op_name="x" stack_frame_id=3}
}

%body (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %arg = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%arg), index=1
  %y = (f32[8]{0}, s8[4]{0}) custom-call(%x, %x), custom_call_target="__cublas$lt$matmul", metadata={stack_frame_id=2}
  %z = f32[8]{0} get-tuple-element(%y), index=0
  %w = f32[8]{0} call(%z), to_apply=%commands
  %s = f32[8]{0} fusion(%w), kind=kInput, calls=%fused_add, metadata={stack_frame_id=4}
  %c = f32[8]{0} copy(%s)
  ROOT %out = (s32[], f32[8]{0}) tuple(%x, %c)
}

%outer (arg.1: (s32[], f32[8])) -> (s32[], f32[8]) {
  %arg.1 = (s32[], f32[8]{0}) parameter(0)
  ROOT %while.1 = (s32[], f32[8]{0}) while(%arg.1), condition=%unknown, body=%body
}

ENTRY %main (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]{0}) parameter(0)
  ROOT %while.2 = (s32[], f32[8]{0}) while(%p), condition=%unknown, body=%outer
}
"""


def test_kernels_are_counted_in_the_innermost_loop_with_their_kinds_and_our_source_lines():
    assert kernels_of_update(PROGRAM) == [
        Kernel("product", "sorl/networks/layers.py:21"),
        Kernel("fusion (loop)", "sorl/networks/layers.py:21"),  # in a called computation, from JAX's own line
        Kernel("fusion (input)", "unknown"),  # no line of this package
        Kernel("copy", "unknown"),
    ]


@pytest.mark.parametrize(
    "branches",
    ["branch_computations={%commands, %fused_add}", "true_computation=%commands, false_computation=%fused_add"],
)
def test_of_the_branches_of_a_switch_the_mean_is_counted(branches):
    copy, switch = "  %c = f32[8]{0} copy(%s)\n", f"conditional(%i, %y, %y), {branches}, metadata={{}}"
    kernels = kernels_of_update(PROGRAM.replace(copy, f"  %c = f32[8]{{0}} {switch}\n"))
    assert kernels[3:] == [
        Kernel("fusion (loop)", "sorl/networks/layers.py:21", 0.5),
        Kernel("add", "unknown", 0.5),
        Kernel("conditional", "unknown"),
    ]


def test_a_program_without_a_loop_is_refused():
    with pytest.raises(ValueError, match="no loop"):
        kernels_of_update("ENTRY %main (p: f32[8]) -> f32[8] {\n  ROOT %p = f32[8]{0} parameter(0)\n}\n")


def test_the_time_of_the_compilation_is_printed_beside_an_earlier_one(capsys):
    found = {"jax": "0.10.2", "processor_seconds": 20.5, "kernels": 188.5, "by_kind": {}, "by_line": {}}
    without = {key: value for key, value in found.items() if key != "processor_seconds"}
    for before in ({}, without, found):
        show(found, before, 20)
    time = "in 20.5 s of processor time"
    ends = [line[line.index(time) :] for line in capsys.readouterr().out.splitlines() if time in line]
    assert ends == [time, time, f"{time} (before: 20.5)"]

"""The formulas of the papers, as pure functions of arrays and callables, without agents, files or clocks."""

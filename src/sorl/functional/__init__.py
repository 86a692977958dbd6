"""Pure functions on arrays and callables: the formulas of the papers. No agent, no file, no clock."""

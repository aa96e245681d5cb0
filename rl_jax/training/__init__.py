"""The engine: one state, one step, one loop, for every family."""

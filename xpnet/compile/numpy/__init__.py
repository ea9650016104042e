"""NumPy as a target: the operations of a trace, one call each."""

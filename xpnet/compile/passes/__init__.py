"""Passes from a trace to a plan. None knows how the trace was recorded, or what will run the plan."""

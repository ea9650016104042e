"""Search: training of many networks at once."""

"""Experiments: python -m xpnet.lab NAME, one file each."""

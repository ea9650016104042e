"""Foundations: devices, random numbers, checks of arguments, errors, interrupts and files."""

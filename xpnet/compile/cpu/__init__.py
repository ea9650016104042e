"""The CPU as a target: loops and products of matrices compiled by LLVM, run on threads."""

"""The CPU as a target: loops compiled by LLVM, run on threads around the products of NumPy's BLAS."""

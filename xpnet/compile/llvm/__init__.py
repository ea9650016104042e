"""Writing LLVM text: one builder for every target that LLVM compiles for."""

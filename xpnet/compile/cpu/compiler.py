"""Compiling functions for this processor with LLVM."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from ..llvm.cache import CodeCache, key_of, user_folder
from ..llvm.optimize import optimized
from ..once import Once
from .target import TARGET, level_features, registers


class Compiler:
    """Compiles functions, one at a time, for the processor at hand, or for the lesser one that `TARGET` names.

    Attributes:
        compiled: the number of functions that were compiled; the others were in the cache.
        processor: LLVM's name of the processor.
        registers: its vector registers.
        cache: the code on disk.

    Args:
        folder: of the cache; None for no cache.
    """

    def __init__(self, folder: Path | None) -> None:
        import llvmlite
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        host = llvm.get_host_cpu_features()
        named = os.environ.get(TARGET)
        processor = self.processor = named or llvm.get_host_cpu_name()
        found = level_features(named, host) if named else host
        features = "" if named else host.flatten()  # LLVM knows those of a level
        self.registers = registers(found)
        target = llvm.Target.from_default_triple()
        self._llvm = llvm
        self._machine = target.create_target_machine(
            cpu=processor, features=features, opt=3, jit=True, codemodel="jitdefault"
        )
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self._machine)
        self._made_for = f"{llvmlite.__version__} {target.triple} {processor} {features}"
        self._addresses: dict[str, int] = {}
        self._lock = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)
        self.cache = CodeCache(folder)
        self.compiled = 0

    def address(self, text: str) -> int:
        """Return the address of the one function that `text`, in LLVM's language, defines."""
        with self._lock:
            if text not in self._addresses:
                digest = key_of(self._made_for, text)
                name = text.partition("@")[2].partition("(")[0]
                unique = f"{name}_{digest}"
                code = self.cache.load(digest)
                if code is None:
                    code = self._compile(text.replace(f"@{name}(", f"@{unique}(", 1))
                    self.cache.store(digest, code)
                self._engine.add_object_file(self._llvm.ObjectFileRef.from_data(code))
                self._engine.finalize_object()
                self._addresses[text] = self._engine.get_function_address(unique)
            return self._addresses[text]

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def _compile(self, text: str) -> bytes:
        code: bytes = self._machine.emit_object(optimized(text, self._machine))
        self.compiled += 1
        return code


@Once
def compiler() -> Compiler:
    """The compiler of this process; raises ImportError where there is no LLVM."""
    return Compiler(user_folder())

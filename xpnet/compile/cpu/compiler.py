"""Compiling functions with LLVM, and keeping them on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

from ..once import Once
from .target import TARGET, level_features, registers

MOST_BYTES = 2**26  # of code on disk: some thousands of functions


class Compiler:
    """Compiles functions, one at a time, for the processor at hand, or for the lesser one that `TARGET` names.

    Attributes:
        compiled: how many functions were compiled; the others were found in `folder`.
        processor: what is compiled for, by LLVM's name.
        registers: the vectors that it has.

    Args:
        folder: where the code is kept, so that the next process finds it; None for nowhere.
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
        self.folder = folder
        self.compiled = 0

    def address(self, text: str) -> int:
        """Return the address of the one function that `text`, in LLVM's language, defines."""
        with self._lock:
            if text not in self._addresses:
                digest = hashlib.sha256(f"{self._made_for}\n{text}".encode()).hexdigest()[:32]
                name = text.partition("@")[2].partition("(")[0]
                unique = f"{name}_{digest}"
                code = self._kept(digest) or self._compile(text.replace(f"@{name}(", f"@{unique}(", 1), digest)
                self._engine.add_object_file(self._llvm.ObjectFileRef.from_data(code))
                self._engine.finalize_object()
                self._addresses[text] = self._engine.get_function_address(unique)
            return self._addresses[text]

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def _compile(self, text: str, digest: str) -> bytes:
        llvm = self._llvm
        module = llvm.parse_assembly(text)
        module.verify()
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        options.loop_vectorization = options.slp_vectorization = False  # it is in vectors already
        builder = llvm.create_pass_builder(self._machine, options)
        builder.getModulePassManager().run(module, builder)
        code: bytes = self._machine.emit_object(module)
        self.compiled += 1
        self._keep(digest, code)
        return code

    def _trim(self, folder: Path) -> None:
        """Remove the oldest files, where all together are too large; once a process, as it takes a look at each."""
        found = [(path.stat(), path) for path in folder.iterdir()]
        kept = 0
        for status, path in sorted(found, key=lambda pair: pair[0].st_mtime_ns, reverse=True):
            kept += status.st_size
            if kept > MOST_BYTES:
                path.unlink(missing_ok=True)

    # A file holds the code and, before it, its SHA-256: a damaged one is not run.
    def _kept(self, digest: str) -> bytes | None:
        if self.folder is None:
            return None
        try:
            data = (self.folder / f"{digest}.code").read_bytes()
        except OSError:
            return None
        return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None

    def _keep(self, digest: str, code: bytes) -> None:
        if self.folder is None:
            return
        temporary = self.folder / f".{digest}.{os.getpid()}.tmp"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(hashlib.sha256(code).digest() + code)
            temporary.replace(self.folder / f"{digest}.code")
            if self.compiled == 1:
                with contextlib.suppress(OSError):  # another process removes the same
                    self._trim(self.folder)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            self.folder = None  # full, or read-only: what is compiled is just not kept


@Once
def compiler() -> Compiler:
    """Return the compiler of this process; raise ImportError where there is no LLVM."""
    return Compiler(cache_folder() / "code")


def cache_folder() -> Path:
    """Return the folder in which the code is kept."""
    import platformdirs

    return platformdirs.user_cache_path("xpnet")

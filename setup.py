"""The part of packaging that pyproject.toml cannot say: directories beside the package that a wheel carries inside it."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SHIPPED = ("model", "targets", "tuning_logs")


def _is_shipped(path: Path) -> bool:
    """Whether a path is a file, but not part of a tuning session that goes on or weights that only show what a recipe does."""
    return path.is_file() and not any(part.endswith(".unfinished") or part == "held-out" for part in path.parts)


class BuildWithShare(build_py):
    """Copies the shipped directories to ``enet_tvm/share``; an editable install finds them where they are."""

    def run(self) -> None:
        """Build as usual, then copy."""
        super().run()
        if not self.editable_mode:
            for source, target in self._shared_files():
                self.mkpath(str(target.parent))
                self.copy_file(str(source), str(target), preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """List the copies among what this step makes."""
        return [*super().get_outputs(include_bytecode), *(str(target) for _, target in self._shared_files())]

    def get_source_files(self) -> list[str]:
        """List the originals among what a source distribution needs."""
        return [*super().get_source_files(), *(str(source.relative_to(ROOT)) for source, _ in self._shared_files())]

    def _shared_files(self) -> list[tuple[Path, Path]]:
        share = Path(self.build_lib, "enet_tvm", "share")
        files = (file for name in SHIPPED for file in sorted((ROOT / name).rglob("*")) if _is_shipped(file))
        return [(file, share / file.relative_to(ROOT)) for file in files]


setup(cmdclass={"build_py": BuildWithShare})

"""Lets PyPI's CUDA build of torch be imported without the 2.7 GB of CUDA libraries that it links to.

    python stub_cuda.py SITE_PACKAGES

On a CPU none of those libraries is ever called, but the dynamic loader insists on finding each of them
with each symbol.  So this writes, for every library that is missing, a shared object of a few kilobytes
with the right name, the right symbols under the right versions, and no code but a trap.
Needs a C compiler (CC, else cc) and binutils (nm, readelf).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

# The libraries of torch that link to CUDA, directly or not, and that `import torch` loads.
LINKED = (
    "libtorch_cuda.so",
    "libtorch_python.so",
    "libc10_cuda.so",
    "libtorch_nvshmem.so",
    "libtorch_cpu.so",
    "libtorch_global_deps.so",
)
# What every Linux has.
SYSTEM = re.compile(r"(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|ld-linux[^.]*)\.so\b")
SYSTEM_FILES = ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1")
COMPILER = os.environ.get("CC", "cc")

Versions = dict[str, set[str]]  # version name -> its symbols


def output(*command: str | Path) -> str:
    """What a command prints; an error when it fails."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed_by(library: Path) -> set[str]:
    """The names of the libraries that `library` links to."""
    return set(re.findall(r"\(NEEDED\).*\[(.+)\]", output("readelf", "-d", library)))


def version_owners(library: Path) -> dict[str, str]:
    """Which library each symbol version that `library` asks for belongs to."""
    owners: dict[str, str] = {}
    owner = ""
    for line in output("readelf", "-V", library).splitlines():
        if match := re.search(r"Version: 1\s+File: (\S+)", line):
            owner = match[1]
        elif owner and (match := re.search(r"Name: (\S+)\s+Flags", line)):
            owners[match[1]] = owner
    return owners


def defined_symbols(libraries: list[Path]) -> set[str]:
    """Every symbol that one of `libraries` offers."""
    symbols: set[str] = set()
    for library in libraries:
        for line in output("nm", "-D", "--defined-only", library).splitlines():
            symbols.add(line.split()[-1].partition("@")[0])
    return symbols


def missing_symbols(users: list[Path], absent: set[str], defined: set[str]) -> tuple[dict[str, Versions], set[str]]:
    """What `users` want from the `absent` libraries: by library and version, and without a version."""
    versioned: dict[str, Versions] = defaultdict(lambda: defaultdict(set))
    plain: set[str] = set()
    for user in users:
        owners = version_owners(user)
        for line in output("nm", "-D", "--undefined-only", user).splitlines():
            kind, symbol = line.split()[-2:]
            name, _, version = symbol.partition("@")
            version = version.lstrip("@")
            if kind != "U":  # a weak symbol may stay undefined
                continue
            if not version and name not in defined:
                plain.add(name)
            elif owners.get(version) in absent:
                versioned[owners[version]][version].add(name)
    return versioned, plain


def write_stub(target: Path, versions: Versions, plain: set[str]) -> None:
    """Links a shared object named like `target` that offers the symbols and traps when called."""
    symbols = sorted(plain.union(*versions.values()))
    labels = "".join(f".globl {name}\n.type {name},@function\n{name}:\n" for name in symbols)
    with tempfile.TemporaryDirectory() as folder:
        assembly, script = Path(folder, "stub.S"), Path(folder, "stub.map")
        assembly.write_text(f'.text\n{labels}ud2\n.section .note.GNU-stack,"",@progbits\n')
        script.write_text(
            "".join(f"{version} {{ global: {'; '.join(sorted(names))}; }};\n" for version, names in versions.items())
        )
        options = [f"-Wl,--version-script={script}"] if versions else []
        options += [f"-Wl,-soname,{target.name}", "-o", str(target)]
        output(COMPILER, "-shared", "-nostdlib", "-fPIC", *options, assembly)


def main(site_packages: Path) -> None:
    torch_libraries = site_packages / "torch" / "lib"
    cuda_libraries = site_packages / "nvidia" / "cu13" / "lib"
    cuda_libraries.mkdir(parents=True, exist_ok=True)
    users = [torch_libraries / name for name in LINKED]
    present = [*torch_libraries.glob("*.so*"), *cuda_libraries.glob("*.so*")]
    names = {path.name for path in present}
    needed = set().union(*map(needed_by, users))
    absent = {name for name in needed if name not in names and not SYSTEM.match(name)}
    system = [Path(output(COMPILER, f"-print-file-name={name}").strip()) for name in SYSTEM_FILES]
    versioned, plain = missing_symbols(users, absent, defined_symbols([*present, *system]))
    for index, name in enumerate(sorted(absent)):
        # A symbol without a version may come from any library: the first one offers them all.
        write_stub(cuda_libraries / name, versioned.get(name, {}), plain if index == 0 else set())
    print(f"stand-ins for {len(absent)} CUDA libraries: {', '.join(sorted(absent)) or 'all are there'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Where the kernel's library comes from, and what happens where it cannot be made."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bnnbench.runtime import build

needs_compiler = pytest.mark.skipif(
    not build.supported() or not any(build.compilers()), reason="no compiler or no kernel here"
)
# A layer computed by whatever path the process chooses, and in floats: what both say.
PROGRAM = """
import torch
from bnnbench.runtime.convolution import PackedConv2d, pack_bits
from bnnbench.runtime.epilogue import Binarizer
from bnnbench.runtime.selftest import on
torch.manual_seed(0)
layer = PackedConv2d(pack_bits(torch.randn(8, 72)), (8, 8, 3, 3), activation=Binarizer(), padding=1)
x = torch.randn(1, 8, 6, 6)
y, path = layer(x), layer.path
print(path, torch.equal(on(None, layer)(x), y), sep="|")
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Runs the program in a process with a cache of its own: the path it took, and its warnings."""

    def run(sources: Path | None = None, **environment: str) -> tuple[str, str]:
        environment = {"BNNBENCH_KERNEL_CACHE": str(tmp_path / "cache"), **environment}
        program = PROGRAM
        if sources:
            files = [str(sources / source.name) for source in build.SOURCES]
            change = f"from bnnbench.runtime import build\nbuild.SOURCES = [*map(Path, {files})]"
            program = f"from pathlib import Path\n{change}\n{PROGRAM}"
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "BNNBENCH_KERNEL": "auto", **environment},
        )
        path, is_equal = done.stdout.strip().split("|")
        assert is_equal == "True"
        return path, done.stderr

    return run


def libraries(folder: Path) -> list[Path]:
    """What lies in a cache."""
    return sorted(folder.iterdir()) if folder.exists() else []


@needs_compiler
def test_a_library_is_compiled_once(fresh, tmp_path: Path) -> None:
    path, said = fresh()
    assert (path, said) == (f"kernel: {build.supported()[0]}", "")
    (made,) = libraries(tmp_path / "cache")
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700
    before = made.stat().st_mtime_ns
    assert fresh() == (path, "")
    assert [f.stat().st_mtime_ns for f in libraries(tmp_path / "cache")] == [before]


@needs_compiler
@pytest.mark.parametrize("choice", build.supported())
def test_each_path_can_be_forced(fresh, choice: str) -> None:
    assert fresh(BNNBENCH_KERNEL=choice) == (f"kernel: {choice}", "")


@needs_compiler
def test_torch_that_is_kept_to_less_keeps_the_kernel_to_less(fresh) -> None:
    if "avx2" not in build.supported():
        pytest.skip("not an AVX2 CPU")
    assert fresh(ATEN_CPU_CAPABILITY="avx2")[0] == "kernel: avx2"


def test_off_is_the_float_path_without_a_word(fresh) -> None:
    assert fresh(BNNBENCH_KERNEL="off") == ("float: BNNBENCH_KERNEL=off", "")


def one_line(said: str, *parts: str) -> None:
    """One warning, which holds all of these."""
    assert said.count("UserWarning") == 1
    assert all(part in said for part in ("packed layers run in floats", *parts)), said


def test_a_cpu_without_byte_shuffles_takes_the_float_path(fresh) -> None:
    path, said = fresh(ATEN_CPU_CAPABILITY="default")
    if "neon" not in build.supported():
        assert path.startswith("float: there is no kernel for this CPU")
        one_line(said, "no kernel for this CPU")


def test_a_path_that_this_cpu_lacks_is_not_tried(fresh) -> None:
    lacking = "avx2" if "neon" in build.supported() else "neon"
    path, said = fresh(BNNBENCH_KERNEL=lacking)
    assert path == f"float: BNNBENCH_KERNEL={lacking}, which this CPU does not run"
    one_line(said, lacking)


def test_an_unknown_path_is_refused(fresh) -> None:
    with pytest.raises(subprocess.CalledProcessError) as error:
        fresh(BNNBENCH_KERNEL="avx")
    assert "BNNBENCH_KERNEL=avx: choose auto, avx512vbmi" in error.value.stderr


@pytest.mark.skipif(not build.supported(), reason="no kernel for this CPU")
def test_without_a_compiler_one_line_says_what_to_install(fresh, tmp_path: Path) -> None:
    path, said = fresh(PATH=str(tmp_path), CC="")
    assert path.startswith("float: no C compiler was found as $CC, cc, gcc or clang")
    one_line(said, "apt install gcc", "xcode-select --install")


def compiler(folder: Path, script: str) -> str:
    """A program of this text, to be called as the compiler."""
    file = folder / "cc"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.skipif(not build.supported(), reason="no kernel for this CPU")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ('[ "$1" = --version ] && exit 0; echo "error: out of luck" >&2; exit 1', "out of luck"),
        ("exit 1", "exit status 1"),
        ("kill -9 $$", "SIGKILL"),
        ("exit 0", ""),  # writes nothing, which is no library
    ],
)
def test_a_broken_compiler(fresh, tmp_path: Path, script: str, reason: str) -> None:
    broken = compiler(tmp_path, script)
    path, said = fresh(PATH="/bin" if script == "exit 0" else str(tmp_path), CC=broken)
    assert path.startswith("float: ")
    one_line(said, reason)


@needs_compiler
def test_a_compiler_that_fails_leaves_its_work_to_the_next(fresh, tmp_path: Path) -> None:
    assert fresh(CC=compiler(tmp_path, "exit 1"))[0].startswith("kernel: ")
    assert fresh(CC=str(tmp_path / "nowhere"))[0].startswith("kernel: ")


@needs_compiler
def test_without_openmp_it_is_compiled_for_one_thread(fresh, tmp_path: Path) -> None:
    real = next(build.compilers())[0]
    script = (
        f'for a in "$@"; do [ "$a" = -fopenmp ] && exit 1; done; exec {shutil.which(real)} "$@"'
    )
    assert fresh(CC=compiler(tmp_path, script), PATH="/usr/bin:/bin")[0].startswith("kernel: ")


@needs_compiler
@pytest.mark.parametrize("what", ["a file", "of others", "not writable"])
def test_a_cache_that_cannot_be_used(fresh, tmp_path: Path, what: str) -> None:
    cache = tmp_path / "cache"
    if what == "a file":
        cache.write_text("")
    else:
        cache.mkdir()
        cache.chmod(0o777 if what == "of others" else 0o500)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    path, said = fresh(TMPDIR=str(temporary))
    assert (path, said) == (f"kernel: {build.supported()[0]}", "")
    if what == "of others":
        assert libraries(cache) == []
    assert libraries(temporary) == []  # the private folder went with its process


@needs_compiler
@pytest.mark.skipif(
    os.getuid() == 0 and not shutil.which("setpriv"), reason="root without setpriv writes anywhere"
)
def test_a_home_that_is_read_only(tmp_path: Path) -> None:
    """The library is made for the process alone."""
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir(mode=0o555)
    temporary.mkdir()
    user = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "XDG_CACHE_HOME": str(home)}
    environment |= {"TMPDIR": str(temporary), "PYTHONPATH": str(Path(build.__file__).parents[2])}
    touched = subprocess.run([*user, "touch", str(home / "a")], capture_output=True, check=False)
    assert touched.returncode
    done = subprocess.run(
        [*user, sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"kernel: {build.supported()[0]}|True"
    assert done.stderr == ""
    assert libraries(home) == libraries(temporary) == []


@needs_compiler
@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_a_library_that_is_not_whole_is_made_again(fresh, tmp_path: Path, kept: int) -> None:
    fresh()
    (made,) = libraries(tmp_path / "cache")
    whole = made.read_bytes()
    made.write_bytes(whole[:kept])
    assert fresh() == (f"kernel: {build.supported()[0]}", "")
    assert made.read_bytes() == whole


@needs_compiler
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("#define STEPS (255 / CHANNELS)", "#define STEPS 80"),  # counters overflow
        ("half + half", "half"),
        ("at.x * l->sw", "at.x"),
        ("fill(top, e->border", "fill(top, e->flip"),
    ],
)
def test_a_kernel_that_computes_wrongly_is_not_used(
    fresh, tmp_path: Path, old: str, new: str
) -> None:
    for source in build.SOURCES:
        text = source.read_text()
        changed = text.replace(old, new) if source.name == "kernel.c" else text
        assert (changed != text) == (source.name == "kernel.c")
        (tmp_path / source.name).write_text(changed)
    path, said = fresh(tmp_path)
    assert path.startswith(f"float: the {build.supported()[0]} kernel failed its self-test")
    one_line(said, "failed its self-test", "CC")


@needs_compiler
def test_processes_that_start_together(tmp_path: Path) -> None:
    environment = {**os.environ, "BNNBENCH_KERNEL_CACHE": str(tmp_path), "BNNBENCH_KERNEL": "auto"}
    command = [sys.executable, "-c", PROGRAM]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    said = {process.communicate()[0] for process in running}
    assert said == {f"kernel: {build.supported()[0]}|True\n"}
    assert all(file.name.startswith(build.supported()[0]) for file in libraries(tmp_path))

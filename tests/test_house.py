"""The house: imports point one way, and `import pymultigrid` loads no framework."""

import ast
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import pymultigrid
from pymultigrid import _core

ROOT = Path(__file__).parent.parent
FRAMEWORKS = {"torch", "torchvision", "tensorflow", "keras", "jax", "lightning"}
# What each room of the core may include besides the standard library: its own files, and those of the rooms below.
ROOMS = {
    "plan": {"plan"},
    "resample": {"resample", "plan"},
    "resample/cpu": {"resample/cpu", "resample", "plan"},
    "resample/cuda": {"resample/cuda", "resample", "plan"},
    "python": {"python", "resample/cuda", "resample", "plan"},
}
# The vector instructions and CUDA's own headers, in the one place for each; Python in the room that binds.
OUTSIDE = {
    "resample/cpu": ("immintrin.h", "arm_neon.h"),
    "resample/cuda": ("cuda_",),
    "python": ("pybind11/", "Python.h"),
}
# Each is imported in the one module or folder whose extra brings it.
OWN_EXTRA = {"plot.py": {"matplotlib"}, "_progress.py": {"tqdm"}, "video": {"av"}}
# Where Keras runs on TensorFlow, `fit` takes a tf.data.Dataset: imported in the one function that makes it.
OWN_BACKEND = {"keras/_batches.py": {"tensorflow"}}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def test_the_library_names_no_framework():
    files = list((ROOT / "pymultigrid").rglob("*.py"))
    assert files
    for path in files:
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & FRAMEWORKS, path
        room = path.relative_to(ROOT / "pymultigrid").parts[0]
        assert tops <= {"pymultigrid", "numpy", *sys.stdlib_module_names} | OWN_EXTRA.get(room, set()), path
        assert not any(name.startswith(("pymultigrid.torch", "pymultigrid.keras")) for name in imports(path)), path


@pytest.mark.parametrize("adapter", ["torch", "keras"])
def test_adapters_know_one_framework(adapter):
    for path in (ROOT / "adapters" / adapter).glob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & (FRAMEWORKS - {adapter, *OWN_BACKEND.get(path.parent.name + "/" + path.name, ())}), path
        other = {"torch": "keras", "keras": "torch"}[adapter]
        assert not any(name.startswith(f"pymultigrid.{other}") for name in imports(path)), path


def test_an_adapter_loads_its_backend_in_a_function_only():
    for name, backends in OWN_BACKEND.items():
        module = ast.parse((ROOT / "adapters" / name).read_text())
        at_the_top = ast.Module([node for node in module.body if not isinstance(node, ast.FunctionDef)], [])
        assert not backends & {n.name for node in at_the_top.body if isinstance(node, ast.Import) for n in node.names}


def test_one_place_knows_whether_processes_train_together():
    asking = {path.name for path in (ROOT / "adapters" / "torch").glob("*.py") if "is_initialized" in path.read_text()}
    assert asking == {"_processes.py"}


def room_of(path):
    return path.parent.relative_to(ROOT / "csrc").as_posix()


def test_the_core_points_one_way():
    files = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    assert {room_of(path) for path in files} == set(ROOMS)
    for path in files:
        room, text = room_of(path), path.read_text()
        for header in re.findall(r'#include "(.+)"', text):
            assert (ROOT / "csrc" / header).is_file(), f"{path}: {header} is not a path from csrc/"
            assert header.rpartition("/")[0] in ROOMS[room], f"{path} includes {header}"
        for header in re.findall(r"#include <(.+)>", text):
            # The standard library's have no ending, and only the system's a folder.
            standard = "." not in header or header.startswith("sys/")
            assert standard or header.startswith(OUTSIDE.get(room, ())), f"{path} includes {header}"


def test_what_is_private_has_an_underscore():
    """`pymultigrid.resample` is a function and nothing else: no module stands in a public name's place."""
    inside = (ROOT / "pymultigrid").iterdir()
    modules = {path.stem for path in inside if path.suffix == ".py" or path.is_dir()}
    assert {name for name in modules if not name.startswith("_")} == {"plot", "video"}
    assert not modules & set(pymultigrid.__all__)
    assert not any(isinstance(getattr(pymultigrid, name), types.ModuleType) for name in pymultigrid.__all__)


@pytest.mark.parametrize("adapter", ["torch", "keras"])
def test_no_module_of_an_adapter_is_called_as_what_it_exports(adapter):
    modules = {path.stem for path in (ROOT / "adapters" / adapter).glob("*.py")}
    names = {
        name.value
        for node in ast.parse((ROOT / "adapters" / adapter / "__init__.py").read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for name in node.value.elts
    }
    assert names
    assert not names & modules


def test_import_loads_no_framework():
    code = f"import pymultigrid, sys; sys.exit(bool({FRAMEWORKS | {'av', 'matplotlib'}!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_missing_core_says_what_to_do(tmp_path):
    """The package beside its sources alone, as in the source folder after a plain install."""
    (tmp_path / "pymultigrid").symlink_to(ROOT / "pymultigrid")
    code = f"import sys; sys.meta_path[:] = sys.meta_path[-3:]; sys.path[:0] = [{str(tmp_path)!r}]; import pymultigrid"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True)
    assert "run from another directory, or install with `pip install --editable .`" in done.stderr


def test_the_stub_names_what_the_core_has():
    stub = ast.parse((ROOT / "pymultigrid" / "_core.pyi").read_text())
    described = {}
    for node in stub.body:
        if isinstance(node, ast.FunctionDef):
            described[node.name] = set()
        elif isinstance(node, ast.AnnAssign):
            described[node.target.id] = set()
        elif isinstance(node, ast.ClassDef):
            described[node.name] = {f.name for f in node.body if isinstance(f, ast.FunctionDef)}
    assert set(described) == {name for name in vars(_core) if not name.startswith("__")}
    for name, members in described.items():
        thing = getattr(_core, name)
        public = {member for member in vars(thing) if not member.startswith("_")} if isinstance(thing, type) else set()
        assert public == {member for member in members if not member.startswith("_")}, name

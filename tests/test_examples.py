"""The examples in the docstrings of every public name, and those of the README, run as written."""

import doctest
import importlib
import inspect
from pathlib import Path

import numpy as np
import pytest

import pymultigrid

README = Path(__file__).parent.parent / "README.md"
# What an example may use without importing it: the library's own names.
NAMES = {"np": np, **{name: getattr(pymultigrid, name) for name in pymultigrid.__all__}}
EXTRAS = {
    "pymultigrid.torch": "torch",
    "pymultigrid.video": "av",
    "pymultigrid._files": "av",
    "pymultigrid.plot": "matplotlib",
    "pymultigrid._clock": "numpy",
    "pymultigrid._sample": "numpy",
}


def documented(module):
    """Public names of a module, and the members of its classes."""
    own = [name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__]
    for name in getattr(module, "__all__", own):
        thing = getattr(module, name)
        if name.startswith("_"):
            continue
        yield f"{module.__name__}.{name}", thing
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                if not (member.startswith("_") or inspect.isclass(value)) and getattr(value, "__doc__", None):
                    yield f"{module.__name__}.{name}.{member}", value


def examples(module):
    texts = ((name, inspect.getdoc(thing)) for name, thing in documented(module))
    return [pytest.param(name, text, id=name) for name, text in texts if text and ">>>" in text]


def run(name, text):
    test = doctest.DocTestParser().get_doctest(text, dict(NAMES), name, None, None)
    said = []
    failed, _ = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert not failed, "".join(said)


@pytest.mark.parametrize(("name", "text"), examples(pymultigrid))
def test_library(name, text):
    run(name, text)


@pytest.mark.parametrize("module", EXTRAS)
def test_extras(module):
    pytest.importorskip(EXTRAS[module], reason=f"{EXTRAS[module]} is missing: examples of {module} were NOT run")
    found = examples(importlib.import_module(module))
    assert found
    for param in found:
        run(*param.values)


@pytest.mark.parametrize("module", ["pymultigrid", *EXTRAS])
def test_every_public_name_says_what_it_is(module):
    if module in EXTRAS:
        pytest.importorskip(EXTRAS[module], reason=f"{EXTRAS[module]} is missing: {module} was NOT read")
    for name, thing in documented(importlib.import_module(module)):
        if callable(thing):
            assert inspect.getdoc(thing), name

"""A pointer keeps nothing alive, and numba lets go of an array at its last use: so no kernel may
have a pointer to an array that it made itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MAKES = {"empty", "zeros", "ones", "full", "empty_like", "zeros_like", "arange"}
POINTS = {"pointer", "pointers"}


def _called(node: ast.AST) -> str:
    """The last name of what is called, "" if nothing is."""
    if not isinstance(node, ast.Call):
        return ""
    at = node.func
    return at.attr if isinstance(at, ast.Attribute) else at.id if isinstance(at, ast.Name) else ""


def _names(node: ast.AST) -> set[str]:
    return {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}


def _assigned(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """What is assigned to what, those of tuples one by one."""
    for target in node.targets if isinstance(node, ast.Assign) else []:
        assert isinstance(node, ast.Assign)
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=True)
        else:
            yield target, node.value


def pointed_to(source: str) -> Iterator[str]:
    """Functions that take a pointer to an array of their own, and the arrays."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        own: set[str] = set()
        for node in ast.walk(function):
            for target, value in _assigned(node):
                if any(_called(one) in MAKES for one in ast.walk(value)):
                    own |= _names(target)
        for node in ast.walk(function):
            if _called(node) in POINTS and isinstance(node, ast.Call):
                for name in own & set().union(*map(_names, node.args)):
                    yield f"{function.name}: {name}"


@pytest.mark.parametrize(
    "made",
    [
        "two = np.empty((2, n), np.float32)\n    p = pointer(two[0])",
        "a, b = np.empty((2, n), np.int64)\n    p = pointers(Seen(a, b))",
        "a, b = x, np.zeros(n)\n    p = pointer(b)",
    ],
)
def test_an_own_array_behind_a_pointer_is_found(made: str) -> None:
    assert list(pointed_to(f"def kernel(x, n):\n    {made}\n"))
    assert not list(pointed_to("def kernel(x, n):\n    a = np.zeros(n)\n    p = pointer(x)\n"))


def test_no_kernel_has_a_pointer_to_an_array_of_its_own() -> None:
    modules = [*(ROOT / "core").rglob("*.py"), *(ROOT / "streamer").rglob("*.py")]
    found = [
        f"{module.relative_to(ROOT)}: {one}"
        for module in modules
        for one in pointed_to(module.read_text("utf-8"))
    ]
    assert len(modules) > 100
    assert found == []

"""The floors of the house: a file imports from lower floors, or from its own folder without running in a circle."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "adatom"

# from the ground up; what stands on one floor in different folders does not import one another
FLOORS = {
    0: "errors units elements config",
    1: "nn",
    2: "graph",
    3: "priors neighbors statistics report",
    4: "models data",
    5: "memory stream potential model_file compile",
    6: "sim uncertainty",
    7: "train properties testing",
    8: "active",
    9: "cli __init__",
    10: "__main__",
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names.split()}
# the models of one architecture each; what two of them share stands in nn/
SHARED_MODELS = {"base", "layered", "__init__"}
MAX_FILE, MAX_FUNCTION = 500, 80


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    """Dotted name below the package and path of every file."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        yield ".".join(parts), path


def imports(path: Path, package: Path) -> list[str]:
    """Dotted names of all that a file imports, wherever in it; names imported from a folder count as its files."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it from {package.name} on"
            module = node.module or ""
            folder = package.parent.joinpath(*module.split("."))
            inner = [f"{module}.{a.name}" for a in node.names if (folder / f"{a.name}.py").exists()]
            found += inner or [module]
    return found


def floor_violations(package: Path) -> list[str]:
    """One sentence for each import that goes up or sideways."""
    wrong = []
    for name, path in modules(package):
        top = name.split(".")[0]
        floor = FLOOR.get(top)
        if floor is None:
            wrong.append(f"{name}: stands on no floor; put it into the table of test_house.py")
            continue
        for target in imports(path, package):
            if not target.startswith(f"{package.name}."):
                continue
            other = target.split(".")[1]
            same_folder = (
                other == top if "." in name else FLOOR.get(other) == floor and (package / f"{other}.py").exists()
            )
            if FLOOR.get(other, 99) >= floor and not same_folder:
                wrong.append(f"{name} (floor {floor}) imports {target} (floor {FLOOR.get(other, 'none')})")
    return wrong


def circles(package: Path) -> list[str]:
    """Files that import one another."""
    known = dict(modules(package))
    graph = {}
    for name, path in known.items():
        targets = {t.removeprefix(f"{package.name}.") for t in imports(path, package)}
        named = {t if t in known else f"{t}.__init__" for t in targets}
        graph[name] = {t for t in named if t in known and t != name}
    try:
        list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def size_violations(folder: Path) -> list[str]:
    """Files and functions that are too long, and drawers that take everything."""
    wrong = []
    for _, path in modules(folder):
        text = path.read_text(encoding="utf-8")
        place = path.relative_to(folder.parent)
        if path.stem in ("utils", "helpers", "misc", "common"):
            wrong.append(f"{place}: name the file after what it is about")
        if (lines := text.count("\n")) > MAX_FILE:
            wrong.append(f"{place}: {lines} lines, {MAX_FILE} at most")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION:
                    wrong.append(f"{place}: {node.name} has {length} lines, {MAX_FUNCTION} at most")
    return wrong


def texts(root: Path) -> Iterator[Path]:
    """The text files a reader of the repository meets."""
    folders = ("src", "tests", "configs", "examples", "benchmarks", "docs", "data", ".ci")
    kinds = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".txt", ".html", ".js", ".css", ".cfg", ""}
    inside = [path for folder in folders for path in (root / folder).rglob("*")]
    for path in sorted([*inside, *root.glob("*")]):
        if path.is_file() and path.suffix in kinds and "__pycache__" not in path.parts:
            yield path


def test_imports_go_down() -> None:
    assert floor_violations(PACKAGE) == []


def test_no_files_import_one_another_in_a_circle() -> None:
    assert circles(PACKAGE) == []


def test_files_and_functions_are_short_and_no_drawer_takes_everything() -> None:
    folders = [PACKAGE, *(ROOT / name for name in ("tests", "examples", "benchmarks") if (ROOT / name).exists())]
    assert [line for folder in folders for line in size_violations(folder)] == []


def test_architectures_do_not_import_each_other() -> None:
    for path in (PACKAGE / "models").glob("*.py"):
        if path.stem in SHARED_MODELS:
            continue
        others = {t.split(".")[2] for t in imports(path, PACKAGE) if t.startswith("adatom.models.")} - SHARED_MODELS
        assert not others, f"{path.name} imports {others}: move what both need to nn/"


def test_the_blocks_of_networks_know_tensors_only() -> None:
    for path in (PACKAGE / "nn").rglob("*.py"):
        assert "adatom.graph" not in imports(path, PACKAGE), f"nn/{path.name} imports Graph"


def test_the_report_reads_files_and_needs_no_torch() -> None:
    for path in (PACKAGE / "report").rglob("*.py"):
        heavy = {t.split(".")[0] for t in imports(path, PACKAGE)} & {"torch", "lightning_fabric", "safetensors"}
        assert not heavy, f"report/{path.name} imports {heavy}"


def test_the_text_speaks_of_the_project_alone() -> None:
    """No path of the machine that a line was written on."""
    foreign = ["/" + "work/", "/" + "home/", "/" + "root/"]
    for path in texts(ROOT):
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not [word for word in foreign if word in text], f"{path.relative_to(ROOT)} names a path of one machine"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small package that keeps the rules."""
    package = tmp_path / "adatom"
    for name, text in {
        "errors.py": "",
        "graph.py": "from adatom.errors import X",
        "nn/__init__.py": "",
        "potential.py": "import adatom.graph",
        "train/__init__.py": "from adatom.train import loop",
        "train/loop.py": "from adatom.potential import Potential",
        "testing/verify.py": "from adatom import graph",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return package


def test_a_sound_house_has_no_violations(house: Path) -> None:
    assert floor_violations(house) == circles(house) == size_violations(house) == []


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("graph.py", "import adatom.potential", "graph (floor 2) imports adatom.potential (floor 5)"),
        (
            "nn/__init__.py",
            "def f():\n    from adatom import potential",
            "nn.__init__ (floor 1) imports adatom.potential",
        ),
        ("testing/verify.py", "from adatom.train.loop import f", "testing.verify (floor 7) imports adatom.train.loop"),
        ("nn/__init__.py", "from adatom.graph import Graph", "nn.__init__ (floor 1) imports adatom.graph (floor 2)"),
        ("drawer.py", "", "drawer: stands on no floor"),
    ],
)
def test_an_import_that_goes_up_or_sideways_is_named_with_both_floors(house, file, text, message) -> None:
    (house / file).write_text(text)
    assert any(line.startswith(message) for line in floor_violations(house)), floor_violations(house)


def test_a_circle_is_named(house: Path) -> None:
    (house / "errors.py").write_text("from adatom.graph import Graph")
    assert "graph" in circles(house)[0]
    assert "errors" in circles(house)[0]


def test_what_is_too_long_is_named(house: Path) -> None:
    (house / "train" / "utils.py").write_text("def f():\n" + "    x = 1\n" * MAX_FUNCTION)
    (house / "potential.py").write_text("x = 1\n" * (MAX_FILE + 1))
    lines = size_violations(house)
    assert any("f has 81 lines" in line for line in lines)
    assert any("501 lines" in line for line in lines)
    assert any("name the file after" in line for line in lines)

"""Input scripts are read as LAMMPS reads them: compared with LAMMPS's own reading, line by line of what is printed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adatom.errors import ConfigError
from adatom.sim.lammps.drive import run
from adatom.sim.lammps.script import bare, statements_of, uncommented, words_of
from adatom.sim.lammps.species import type_map
from toy import toy_potential

LOOPS = """
variable a loop 3
label outer
  variable b index x y    # two turns
  label inner
    print "a ${a} b ${b}"
    if "${a} == 2 && ${b} == x" then "print 'branch one'" "jump SELF away" &
      elif "${a} == 3" "print 'branch two'" else 'print "branch three, # no comment"'
  next b
  jump SELF inner
  label away
  variable b delete
next a
jump SELF outer
print "after"
"""
TEXTS = '''
variable t string "one  two"
print "${t}" # a comment with "quotes"
print """several "quoted"
lines # and no comment""" end yes
print 'single "double" single'
variable n equal 2*&
  3+1
print "n is $(v_n:%.1f)"
if "$(v_n) > 6.5" then "include other.lmp"
print "back from ${other}"
'''
JUMPS = """
variable i loop 2
include other.lmp
if "${i} < 2" then "jump third.lmp there"
print "never, for third.lmp goes on alone"
"""
OTHER = 'variable other string other.lmp\nprint "in ${other}"\n'
THIRD = 'print "skipped"\nlabel there\nprint "third ${i}"\nquit\nprint "not after quit"\n'


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("other.lmp").write_text(OTHER)
    Path("third.lmp").write_text(THIRD)


@pytest.mark.parametrize("text", [LOOPS, TEXTS, JUMPS])
def test_a_script_says_what_it_says_to_lammps_itself(text: str) -> None:
    if "yes" in text:
        text = text.replace(" end yes", "")
    Path("in.lmp").write_text("echo none\nprint begin\n" + text)
    binary = Path(sys.executable).with_name("lmp")
    assert binary.exists() or shutil.which("lmp")
    command = [str(binary), "-in", "in.lmp", "-log", "theirs.log", "-screen", "none"]
    subprocess.run(command, check=True, capture_output=True)
    run("in.lmp", toy_potential(), log="ours.log")

    def printed(log: str) -> list[str]:
        lines = Path(log).read_text().split("begin\n", 1)[1].splitlines()
        return [line for line in lines if "wall time" not in line]

    assert printed("ours.log") == printed("theirs.log")
    assert len(printed("ours.log")) >= 2


def test_statements_carry_the_line_they_begin_on() -> None:
    Path("in.lmp").write_text('units metal\n\n# nothing\nprint """a\nb"""\nvariable x &\n equal 3\nrun 0 # go\n')
    found = [(s.text, s.line) for s in statements_of(Path("in.lmp"))]
    assert found == [("units metal", 1), ('print """a\nb"""', 4), ("variable x   equal 3", 6), ("run 0", 8)]


def test_words_and_comments_know_quotes() -> None:
    assert words_of('if "a b" then """c "d" e""" f') == ["if", '"a b"', "then", '"""c "d" e"""', "f"]
    assert [bare(w) for w in ('"a b"', "'c'", '"""d"""', "e")] == ["a b", "c", "d", "e"]
    assert uncommented("print '# no' # yes") == "print '# no' "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("variable i loop 2\njump SELF nowhere", "label to jump to"),
        ("include missing.lmp", "cannot be read"),
        ('if "1 > 0" print', "this if cannot be read"),
        ("include in.lmp", "include one another"),
    ],
)
def test_what_leads_nowhere_is_an_error_that_names_the_line(text: str, said: str) -> None:
    Path("in.lmp").write_text("units metal\n" + text)
    with pytest.raises(ConfigError, match=said) as error:
        run("in.lmp", toy_potential())
    assert str(error.value.where).startswith("in.lmp, line ")


def test_a_script_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match="cannot be read") as error:
        run("no.lmp", toy_potential())
    assert error.value.where == "no.lmp"


def test_types_are_found_by_their_masses_and_isotopes_may_pass() -> None:
    potential = toy_potential()
    assert type_map((), np.array([28.0855, 15.999, 63.5]), potential, None).tolist() == [14, 8, 29]
    assert type_map(("O", "H"), np.array([15.999, 2.014]), potential, None).tolist() == [8, 1]  # heavy water
    assert type_map(("H", "O"), np.array([3.024, 13.983]), potential, None).tolist() == [1, 8]  # mass moved to hydrogen
    with pytest.raises(ConfigError, match="has the mass of type 1"):
        type_map((), np.array([2.014]), potential, None)
    with pytest.raises(ConfigError, match=r"in\.lmp, line 3"):
        type_map(("O", "Xx"), np.array([15.999, 2.014]), potential, "in.lmp, line 3")
    with pytest.raises(ConfigError, match="does not fit the masses") as error:
        type_map(("O", "Si"), np.array([28.085, 15.999]), potential, "in.lmp, line 3")
    assert error.value.where == "in.lmp, line 3"

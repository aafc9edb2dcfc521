"""The doctor on many published data sets: what it finds, beside what their README files say is odd.

    python benchmarks/doctor.py --data DIR

``DIR`` holds a folder for each set with ``*.xyz.xz`` files. Writes ``results/doctor.json`` and ``docs/doctor.md``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from adatom.data.doctor.files import examine_files

ROOT = Path(__file__).parent.parent

# set -> what its README says is odd, and the kind of finding (with words of its message) that must say so
ODD: dict[str, list[tuple[str, str, str]]] = {
    "3bpa": [("parts of train_mixedT stand in other files", "copies", "structures repeat")],
    "ag3_charged": [("two charges, +1 and -1", "several charges", "-1 (1100), 1 (1100)")],
    "aimnet2_ions_sample": [
        ("charges -3 to +2", "several charges", "-3 (2)"),
        ("multiplicities 1 to 3", "several spins", "1 (83), 2 (77), 3 (35)"),
        ("net force 0.02 eV/Å", "net force", "do not sum to zero"),
    ],
    "batio3_500": [
        ("78 duplicate frames", "copies", "structures repeat"),
        ("forces up to 28 eV/Å at 0.6 rms", "large forces", "28."),
    ],
    "bilayer_graphene_qmc": [
        ("energies only", "missing forces", "no structure has forces"),
        ("the same structures by three methods", "contradicting copies", "different energies"),
        ("DMC on another scale than DFT", "shifted energies", "qmc.xyz.xz"),
    ],
    "botnet_ethanol": [
        ("test curves carry energies only", "missing forces", "test_dimers.xyz.xz"),
        ("train in train_eth_meth", "copies", "structures repeat"),
        ("isolated atoms", "isolated atoms", "free atoms fit"),
        ("dimer curves to dissociation", "lonely atoms", "without any neighbour"),
    ],
    "carbene_spin": [("singlets and triplets under spin_label", "contradicting copies", "different energies")],
    "charged_dimers_lode": [("charges -1, 0, +1", "several charges", "-1 (13), 0 (52), 1 (13)")],
    "cu_poet19": [("sign of the stress not verified", "energy and stress", "agree")],
    "cu_ace21_1k": [("2 duplicates", "copies", "2 structures repeat")],
    "fe_spin_snap": [
        ("13 duplicates", "copies", "structures repeat"),
        ("equal atoms, other spins, other energies", "contradicting copies", "different energies"),
        ("stress of the BCC-HCP group off by 1.21", "energy and stress of a kind", "HCP"),
    ],
    "formate_cu110_subset": [
        ("net force 0.5 eV/Å", "net force", "0.56 eV/Å"),
        ("a few forces up to 74 eV/Å", "large forces", "up to 74"),
        ("98 frames in both files", "copies", "98 structures repeat"),
    ],
    "halide_perovskite": [
        ("21 duplicates", "copies", "structures repeat"),
        ("sys001 on another energy scale", "shifted energies", "sys001"),
    ],
    "hbew_n2p2": [
        ("net force 0.03 eV/Å", "net force", "do not sum to zero"),
        ("forces up to 40 eV/Å at 1.1 rms", "large forces", "39.5"),
    ],
    "inp_snap": [("92 duplicates", "copies", "structures repeat")],
    "mad_val_1000": [("forces up to 126 eV/Å", "large forces", "up to 126")],
    "mattersim_bench": [
        ("a duplicate, a frame in two files", "copies", "structures repeat"),
        ("pressures to 1 TPa", "close contacts", "covalent radii"),
        ("forces up to 236 eV/Å", "large forces", "up to 236"),
    ],
    "mlearn_elements": [("stress of Mo, Ni and Cu: yz and xz exchanged", "order of the stress", "yz and xz")],
    "md17_ethanol_2000": [("forces noisier than rMD17", "net force", "do not sum to zero")],
    "ncia_interaction": [
        ("interaction energies only", "missing energy", "no structure has energy"),
        ("D1200 holds the 442 minima of D442x10", "copies", "442 structures repeat"),
        ("charges -2 to +1", "several charges", "-2 (50), -1 (600)"),
    ],
    "nio_spin": [
        ("finite differences inconclusive", "energy and forces", "more than their forces explain"),
        ("frames in several files", "copies", "structures repeat"),
        ("displacements of 2e-3 Å", "near-duplicates", "within 0.05 Å"),
    ],
    "oc20_s2ef_sample": [
        ("up to 40 frames of one relaxation", "near-duplicates", "frames that follow each other"),
        ("30 systems, 41 elements", "references", "of 41 elements"),
    ],
    "pbte_nep": [("frames of test in train; duplicates", "copies", "15 structures repeat")],
    "qm7": [("energies only", "missing forces", "no structure has forces")],
    "qm7b_dipole_pol": [("no energies", "missing energy", "no structure has energy")],
    "qm9_small": [
        ("the 500 contain the 100", "copies", "100 structures repeat"),
        ("energies only", "missing forces", "no structure has forces"),
    ],
    "sapt10k_dimers": [
        ("SAPT parts only", "missing energy", "no structure has energy"),
        ("charges -2 to +2", "several charges", "-2 (19), -1 (493)"),
    ],
    "silica_zeolites": [
        ("corrupt frames of mtt dropped", "unexplained energies", "pair potential"),
        ("net force up to 0.19 eV/Å", "net force", "up to 0.186"),
    ],
    "solvent_xtb": [("isolated atoms", "isolated atoms", "free atoms fit")],
    "spice_bec_sample": [("net force 5e-3 eV/Å", "net force", "do not sum to zero")],
    "spice_dipeptides": [("net force 5e-3 eV/Å", "net force", "do not sum to zero")],
    "ta_snap": [
        ("stress of Elastic_* inconsistent with meV energies", "energy of a kind", "Elastic_BCC"),
        ("the same in Elastic_FCC", "energy of a kind", "Elastic_FCC"),
        ("compressed to 3 TPa", "wild energies", "39.7"),
    ],
    "water_dimer_mp2": [("11 duplicates", "copies", "11 structures repeat")],
    "water_pbe0_deepmd": [("forces do not sum to zero", "net force", "do not sum to zero")],
    "water_revpbe0d3": [
        ("net force 0.4 eV/Å", "net force", "0.42 eV/Å"),
        ("the sample is biased: test_160 is harder", "shifted energies", "test_160"),
    ],
    "water_rpbe_d3": [("net force of test50", "net force", "do not sum to zero")],
    "water_scan_dplr": [
        ("1 duplicate", "copies", "1 structure repeats"),
        ("files are float32", "coarse energy", "single precision"),
    ],
    "wbe_snap": [
        ("stress for 884 of 4000", "missing stress", "3116 of 4000"),
        ("12 duplicates", "copies", "structures repeat"),
        ("compressed to +35 eV/atom", "wild energies", "40.3"),
    ],
}  # fmt: skip
# set -> training files, test files, and the kind of finding with words of its message
SPLITS: dict[str, list[tuple[str, str, str, str, str]]] = {
    "pbte_nep": [("train", "test", "5 frames of test in train", "leakage", "5 of 200 test structures")],
    "3bpa": [
        ("train_300K", "train_mixedT", "31 frames of train_mixedT in train_300K", "leakage", "31 of 500"),
        ("train_300K", "derived_600K_from_mixedT_167", "the derived 600 K set is no part of train_300K", "", "leakage"),
    ],
    "botnet_ethanol": [
        ("train", "train_eth_meth", "train in train_eth_meth", "leakage", "1000 of 1300"),
        ("train", "test_MD", "test_MD is no part of train", "", "leakage"),
    ],
    "water_revpbe0d3": [("train_rest", "test_160", "test_160 is no part of train_rest", "", "leakage")],
    "mattersim_bench": [
        ("mptrj-random-1k", "mptrj-highest-stress-1k", "1 frame in both files of MPtrj", "leakage", "1 of 1000"),
    ],
    "qm9_small": [("qm9_schnetpack500", "qm9_first100", "the 500 contain the 100", "leakage", "100 of 100")],
    "formate_cu110_subset": [("deal_0.05_408", "deal_0.2", "98 frames in both files", "leakage", "98 of 105")],
}
# sets without a label to train on: there an error is right
NO_ENERGY = {"ncia_interaction", "qm7b_dipole_pol", "sapt10k_dimers"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--only", nargs="*", help="names of sets")
    arguments = parser.parse_args()
    rows = []
    for folder in sorted(p for p in arguments.data.iterdir() if p.is_dir()):
        files = sorted(folder.rglob("*.xyz.xz"))
        if files and (not arguments.only or folder.name in arguments.only):
            rows.append(examined(folder.name, files))
            print(told(rows[-1]), flush=True)
    if not arguments.only:
        values = {"sets": rows, **totals(rows)}
        out = ROOT / "benchmarks" / "results" / "doctor.json"
        out.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (ROOT / "docs" / "doctor.md").write_text(page(values), encoding="utf-8")


def examined(name: str, files: list[Path]) -> dict[str, Any]:
    """What the doctor says of one set, and which of its known oddities it names."""
    begin = time.process_time()
    examination = examine_files({"train": files})
    seconds = time.process_time() - begin
    findings = examination.findings
    odd = [
        {"what": what, "found": any(f.kind == kind and words in f.message for f in findings), "as": kind}
        for what, kind, words in ODD.get(name, [])
    ]
    odd += [split_of(name, files, *entry) for entry in SPLITS.get(name, [])]
    part = examination.tables["parts"].get("train", {})
    slopes = next(iter(part.get("slopes", [])), {})
    return {
        "set": name,
        "structures": part.get("structures", 0),
        "atoms": part.get("atoms", 0),
        "cpu_seconds": round(seconds, 2),
        "energy_over_forces": slopes.get("forces"),
        "energy_over_stress": slopes.get("stress"),
        "findings": [{"severity": f.severity, "kind": f.kind, "message": f.message} for f in findings],
        "odd": odd,
        "false_error": bool(examination.errors) and name not in NO_ENERGY,
    }


def split_of(name: str, files: list[Path], train: str, test: str, what: str, kind: str, words: str) -> dict[str, Any]:
    """One part of a set against another; without a kind, nothing of the kind ``words`` may be found."""
    named = {path.name.removesuffix(".xyz.xz"): path for path in files}
    findings = examine_files({"train": [named[train]], "test": [named[test]]}).findings
    if not kind:
        return {"what": what, "found": not any(f.kind == words for f in findings), "as": words}
    return {"what": what, "found": any(f.kind == kind and words in f.message for f in findings), "as": kind}


def totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    odd = [entry for row in rows for entry in row["odd"]]
    return {
        "structures": sum(row["structures"] for row in rows),
        "cpu_seconds": round(sum(row["cpu_seconds"] for row in rows), 1),
        "oddities": len(odd),
        "oddities_found": sum(entry["found"] for entry in odd),
        "false_errors": [row["set"] for row in rows if row["false_error"]],
    }


def told(row: dict[str, Any]) -> str:
    missed = [entry["what"] for entry in row["odd"] if not entry["found"]]
    verdict = f"MISSED {missed}" if missed else f"{len(row['odd'])} of {len(row['odd'])}"
    wrong = " FALSE ERROR" if row["false_error"] else ""
    return f"{row['set']:28}{row['structures']:7}{row['cpu_seconds']:8.2f} s  {verdict}{wrong}"


def page(values: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = [
        "# The data doctor on published sets",
        "",
        "`adatom data check FILES` was run on every set below, all files of a set together as training data, with",
        "no option at all; where a set comes in parts, these were checked against each other too (`--test`). Known to",
        "be odd is what the README of the set records, or what came to light since; ✓ where the doctor says",
        "so, ✗ where it does not.",
        f"{values['oddities_found']} of {values['oddities']} oddities were found in {len(values['sets'])} sets of",
        f"{values['structures']:,} structures, in {values['cpu_seconds']:.0f} s of one core with reading; errors on",
        f"sets that can be trained on: {len(values['false_errors'])}. `python benchmarks/doctor.py --data DIR` repeats",
        "it, and [the findings in full](../benchmarks/results/doctor.json) lie beside it. The thresholds were set with",
        "these sets at hand: on others, look at the warnings with your own eyes.",
        "",
        "dE / forces and dE / stress are the slopes of energy differences over the work of forces and stress: 1 where",
        "the labels belong together, – where no structures lie close enough to tell.",
        "",
        "| set | structures | known to be odd | warnings, besides | dE / forces | dE / stress |",
        "|---|---:|---|---|---:|---:|",
    ]
    for row in values["sets"]:
        odd = "<br>".join(f"{'✓' if entry['found'] else '✗'} {entry['what']}" for entry in row["odd"])
        named = {entry["as"] for entry in row["odd"]}
        others = [f for f in row["findings"] if f["severity"] != "note" and f["kind"] not in named]
        warned = "<br>".join(f["kind"] if f["severity"] == "warning" else f"**{f['kind']}**" for f in others)
        values_of = (row["energy_over_forces"], row["energy_over_stress"])
        slopes = " | ".join("–" if value is None else f"{value:.3f}" for value in values_of)
        lines.append(f"| {row['set']} | {row['structures']:,} | {odd or '–'} | {warned or '–'} | {slopes} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

"""``adatom data pack``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from adatom.cli.app import console
from adatom.cli.data import data
from adatom.errors import ConfigError


@data.command()
def pack(
    files: Annotated[
        list[Path] | None, typer.Argument(help="structures: anything that training reads, .aselmdb, .db")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="folder of the store")] = None,
    energy: Annotated[
        str | None, typer.Option(help="name of the energy field, where it is not found by itself")
    ] = None,
    forces: Annotated[str | None, typer.Option(help="name of the forces field")] = None,
    stress: Annotated[str | None, typer.Option(help="name of the stress field")] = None,
    virial: Annotated[str | None, typer.Option(help="name of the virial field, used where there is no stress")] = None,
    charge: Annotated[str | None, typer.Option(help="name of the field of the total charge")] = None,
    spin: Annotated[str | None, typer.Option(help="name of the field of the multiplicity, 2S + 1")] = None,
    units: Annotated[
        list[str] | None, typer.Option(help="unit of a label: --units forces=Hartree/Bohr (repeatable)")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(help="instead of packing: compare all of this store with its hashes")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="begin anew where a store is")] = False,
) -> None:
    """Pack structures into a store, which is read as it is used. Run again, it goes on where it was interrupted."""
    from adatom.data.labels import Keys
    from adatom.data.pack import pack as run
    from adatom.data.read import Units, found_table
    from adatom.data.store import Store

    if verify is not None:
        store = Store(verify)
        store.verify()
        console.print(f"{verify}: {len(store)} structures in {len(store.shards)} shards, all as packed", soft_wrap=True)
        return
    if out is None or not files:
        raise ConfigError("nothing to pack", wanted="files and a folder", remedy="adatom data pack FILES -o STORE")
    keys = Keys(energy=energy, forces=forces, stress=stress, virial=virial, charge=charge, spin=spin)
    named = dict(entry.partition("=")[::2] for entry in units or [])
    began = time.monotonic()

    def tell(done: int) -> None:
        console.print(f"{done} structures, {time.monotonic() - began:.0f} s", soft_wrap=True)

    store = run(files, out, keys, Units.parse(named, where="--units"), overwrite, tell)
    console.print(found_table(store.found))
    size = sum(path.stat().st_size for path in out.iterdir())
    console.print(
        f"{out}: {len(store)} structures, {len(store.arrays.rows)} atoms, {size / 1e6:.1f} MB", soft_wrap=True
    )

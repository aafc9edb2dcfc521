"""adatom: train, check and run machine-learned interatomic potentials."""

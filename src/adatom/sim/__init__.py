"""Drive atoms with a potential: ASE calculator, relaxation, molecular dynamics."""

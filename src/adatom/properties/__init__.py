"""What a potential says about a material."""

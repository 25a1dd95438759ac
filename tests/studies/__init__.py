"""What the planets whose truth is known say: arms, numbers of sites, bias, refinement."""

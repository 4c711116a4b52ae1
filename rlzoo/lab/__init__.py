"""An exact laboratory for policy-gradient objectives: small enough to enumerate, so that nothing is sampled."""

"""Many attacks, defenses and victims in one plan that is safe to stop and to repeat."""

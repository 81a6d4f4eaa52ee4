"""`python -m miue` and `torchrun -m miue` are the command `miue`."""

from miue.cli.main import main

main()

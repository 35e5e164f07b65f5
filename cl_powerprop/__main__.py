"""`python -m cl_powerprop`."""

from cl_powerprop.cli import main

main()

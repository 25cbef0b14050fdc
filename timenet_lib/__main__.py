"""Run the command line as `python -m timenet_lib`."""

from timenet_lib.cli import main

main(prog_name="timenet")

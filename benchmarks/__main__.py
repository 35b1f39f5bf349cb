"""`python -m benchmarks`: the command line is in cli.py."""

from benchmarks.cli import main

if __name__ == "__main__":
    main()

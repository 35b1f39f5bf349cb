"""`python -m taskmesh`: the same command line as `taskmesh`."""

from taskmesh.cli.entry import main

if __name__ == "__main__":
    main()

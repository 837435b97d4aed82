"""``python -m timetrial``: the command line."""

from timetrial.bench.cli import main

if __name__ == "__main__":
    main()

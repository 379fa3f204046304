"""``python -m tabdiff``: the same as the command ``tabdiff``."""

from tabdiff.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())

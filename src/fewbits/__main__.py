"""The `fewbits` command, also as `python -m fewbits`."""

import sys

from fewbits.errors import InterruptedVerb


def main() -> None:
    """The command. Ctrl-C is heeded from here on: most of a start is the import of what is behind the verbs."""
    try:
        from fewbits.cli.main import run
    except KeyboardInterrupt:
        print("fewbits: interrupted; nothing was begun", file=sys.stderr)
        sys.exit(InterruptedVerb.exit_code)
    run()


if __name__ == "__main__":
    main()

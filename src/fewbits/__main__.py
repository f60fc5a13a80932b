"""`python -m fewbits` is the `fewbits` command."""

from fewbits.cli.main import run

if __name__ == "__main__":
    run()

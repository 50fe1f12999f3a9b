"""`python -m diagnostics`: the same as the console command."""

from diagnostics.cli.app import main

if __name__ == "__main__":
    main()

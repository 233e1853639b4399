"""Race methods over tasks: python scripts/compare.py race=photographs budget=20."""

from spectrain.cli.compare import main

if __name__ == "__main__":  # the processes of the cells import this file
    main()

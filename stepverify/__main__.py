"""Run the command line: ``python -m stepverify fit --config F``."""

from stepverify.cli import main

if __name__ == "__main__":
    main()

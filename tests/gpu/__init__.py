"""What only a GPU can show; ``make test-gpu``. README.md in this folder says how to run it anywhere else."""

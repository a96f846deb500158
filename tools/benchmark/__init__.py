"""The parts of tools/bench.py: environments, child processes and what they use, tables and plots."""

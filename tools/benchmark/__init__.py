"""The parts of tools/bench.py: environments, child processes, their memory and files, tables and plots."""

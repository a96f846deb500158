"""Who does the tasks of a plan: processes of this machine, or any executor. It knows plans and `fill`, not jobs."""

"""Run the tasks of a plan on this machine or on any executor. Depends on plans and `fill`, not on jobs."""

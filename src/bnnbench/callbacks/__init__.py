"""Lightning callbacks: schedules, guards, the history of a run, wandb."""

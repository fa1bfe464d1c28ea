"""Lightning callbacks that accompany any run: schedules, guards, its history, its pictures."""

"""LightningModules: one a task, none of which knows any method."""

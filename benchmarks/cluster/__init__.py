"""The budgets of a cluster, each measured in turn with one machine where there is something to compare."""

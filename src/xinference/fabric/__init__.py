"""The control link between the supervisor and the nodes of a cluster: messages of some kilobytes, and nothing else."""

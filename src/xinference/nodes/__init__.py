"""The machines on which replicas run: this one, and the nodes of a cluster."""

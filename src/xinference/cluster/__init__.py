"""The supervisor's side of a cluster: its nodes, the port at which they join, and the choice of a node."""

"""The supervisor's side of a cluster: its nodes, the door through which they join, and the choice of a node."""

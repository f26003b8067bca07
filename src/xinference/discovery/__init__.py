"""From a path or a hub's id to a family: what can be launched without anybody having described it."""

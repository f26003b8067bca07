"""What the gateway costs: the same load on an engine that costs nothing, directly and through us, in one run.

python -m benchmarks.gateway [--quick] [--json FILE] [--picture FILE.svg] [--versus NAME=SRC]
"""

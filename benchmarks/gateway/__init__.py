"""Overhead of the gateway: the same load on an engine that computes nothing, directly and through it, in one run.

python -m benchmarks.gateway [--quick] [--json FILE] [--picture FILE.svg] [--versus NAME=SRC]
"""

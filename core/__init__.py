"""The engine of Walkstream: a decayed item graph, random walks, skip-gram, clusters and LSH.

Arrays go in and arrays come out. Nothing here reads a clock, a disk or a network, and nothing
imports `streamer`: whatever is random follows from a seed and a round number.
"""

"""A stage's tasks on the workers of a cluster: the home's side, and the far side.

Home and far side talk through what the cluster's own library has: see `links.Cluster`.
"""

"""Secure aggregation: the hub learns the sum of the sites' updates and none of them [Bonawitz et al. 2017, 1611.04482]."""

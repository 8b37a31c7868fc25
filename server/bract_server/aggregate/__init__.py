"""From verified updates to new arrays: a rule that makes one update of the sites', then the server's optimizer. Pure.

Sites stand in the order of their names, so that no result depends on who answered first; files are read by blocks, so that
memory does not grow with the number of sites or the size of a tensor. Everything here is a post-processing of noised updates
and costs no privacy; and what noise has hidden, no rule here finds again.

updates       a site's verified update, and the matrix of all of them, block by block
combination   what a rule says: each site's share, and what becomes of a block
rule          from the plan's choice to a combination
gram          inner products of whole updates, for rules that need distances
mean, divergence, median, clipping, krum      the rules
optimizer     the server's step
"""
